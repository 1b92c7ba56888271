"""The chat format of Llama 2, as Meta's reference writes it."""

from __future__ import annotations

from collections.abc import Sequence

from puna.errors import PromptFormatError
from puna.prompt.family import ToolForm
from puna.prompt.format import Piece, Special, check_continues, encode_plain, text_only
from puna.prompt.messages import Assistant, Content, Message, System, User
from puna.prompt.preamble import Preamble
from puna.tokens import Tokenizer

__all__ = ["LLAMA2_TAGS", "Llama2Format", "llama2_pieces"]

LLAMA2_TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
"""What parts the turns. These are plain text to the vocabulary, so a message must not hold them."""

_BEGIN, _END = Special("<s>"), Special("</s>")
_WHO = "Llama 2"


def llama2_pieces(messages: Sequence[Message], *, continue_last: bool = False) -> list[Piece]:
    """Write a conversation as pieces: finished pairs of turns in ``<s>`` and ``</s>``, then the last turn.

    The ends of texts are trimmed as the reference does it: all but the spaces before a first message that
    has a system message glued to it.

    Args:
        messages: maybe a system message, then the user and the assistant in turns; the last is the user's.
        continue_last: the last is the assistant's, and stays open.

    Raises:
        PromptFormatError: it is another order, a tool or a picture is in it, or a text holds one of
            `LLAMA2_TAGS`, which would be a turn of its own.
    """
    if continue_last:
        check_continues(messages)
    texts = _turns(messages)
    if len(texts) % 2 != (0 if continue_last else 1):
        raise PromptFormatError("a conversation with Llama 2 must end with a message of the user's")
    pieces: list[Piece] = []
    for i in range(0, len(texts), 2):
        pieces.append(_BEGIN)
        question = f"[INST] {texts[i].strip()} [/INST]"
        if i + 1 == len(texts):
            pieces.append(question)
        elif continue_last and i + 2 == len(texts):
            pieces.append(f"{question} {texts[i + 1].lstrip()}")
        else:
            pieces += [f"{question} {texts[i + 1].strip()} ", _END]
    return pieces


def _turns(messages: Sequence[Message]) -> list[str]:
    rest = list(messages)
    system = rest.pop(0) if rest and isinstance(rest[0], System) else None
    if not rest:
        raise PromptFormatError("a conversation with Llama 2 must have a message of the user's")
    texts = []
    for i, message in enumerate(rest):
        needed = Assistant if i % 2 else User
        if not isinstance(message, needed):
            raise PromptFormatError(
                "Llama 2 takes the user and the assistant in turns, and a system message first: message "
                f"{i + len(messages) - len(rest)} must be the {needed.__name__.lower()}'s, "
                f"got one of the {type(message).__name__.lower()}'s"
            )
        if isinstance(message, Assistant) and message.tool_calls:
            raise PromptFormatError("Llama 2 was taught no tools, and a message calls one")
        texts.append(_checked(message.content))
        if isinstance(message, User) and message.context is not None:
            texts[-1] += "\n\n" + _checked(message.context)
    if system is not None:
        texts[0] = f"<<SYS>>\n{_checked(system.content)}\n<</SYS>>\n\n{texts[0]}"
    return texts


def _checked(content: Content) -> str:
    text = text_only(content, _WHO)
    for tag in LLAMA2_TAGS:
        if tag in text:
            raise PromptFormatError(
                f"a message holds {tag!r}, which for Llama 2 begins or ends a turn; take it out or write it "
                "in another way"
            )
    return text


class Llama2Format:
    """Turns in ``[INST]`` tags, which are text; the vocabulary's own tokens open and end each pair.

    Source: ``llama/generation.py`` of Llama 2's release.
    """

    name = "llama2"
    call_form: ToolForm = "json"

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Use a vocabulary.

        Args:
            tokenizer: Llama 2's.

        Raises:
            PromptFormatError: it has no tokens that open and end a text.
        """
        if tokenizer.bos_id is None or not tokenizer.eos_ids:
            raise PromptFormatError("the Llama 2 chat format needs tokens that open and end a text")
        self._tokenizer = tokenizer
        self._ids = {_BEGIN.text: tokenizer.bos_id, _END.text: tokenizer.eos_ids[0]}
        self.stop_ids = frozenset(tokenizer.eos_ids)

    def encode_chat(
        self, messages: Sequence[Message], *, continue_last: bool = False, preamble: Preamble | None = None
    ) -> list[int]:
        """See `ChatFormat.encode_chat`.

        Raises:
            PromptFormatError: as `llama2_pieces`, or tools are offered.
        """
        if preamble is not None and preamble.offered:
            raise PromptFormatError("Llama 2 was taught no tools; use a model from llama3.1 on")
        ids: list[int] = []
        for piece in llama2_pieces(messages, continue_last=continue_last):
            if isinstance(piece, Special):
                ids.append(self._ids[piece.text])
            else:
                ids += self._tokenizer.encode(piece)
        return ids

    def encode_text(self, content: Content) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return encode_plain(self._tokenizer, text_only(content, _WHO))
