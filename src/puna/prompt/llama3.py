"""The chat format of Llama 3, 3.1, 3.2 and 3.3, token for token as Meta's reference writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from puna.errors import PromptFormatError
from puna.prompt.call_text import CallStyle, assistant_pieces
from puna.prompt.family import Family, family
from puna.prompt.format import Piece, Special, check_continues
from puna.prompt.images import IMAGE_ID, IMAGE_TOKEN
from puna.prompt.messages import Assistant, Content, Image, Message, System, Tool, User, parts_of
from puna.prompt.preamble import Preamble, with_preamble
from puna.tokens import Tokenizer

__all__ = ["LLAMA3_MARKS", "Llama3Format", "content_pieces", "llama3_pieces"]

LLAMA3_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""The special tokens without which there is no Llama 3 format."""

_BEGIN = Special("<|begin_of_text|>")
_START_HEADER, _END_HEADER, _END_OF_TURN = map(Special, LLAMA3_MARKS)
_END_OF_MESSAGE = Special("<|eom_id|>")

_ROLE_NAMES: dict[type[Message], str] = {
    System: "system",
    User: "user",
    Assistant: "assistant",
    Tool: "ipython",
}


def llama3_pieces(
    messages: Sequence[Message], style: CallStyle, *, continue_last: bool = False, has_images: bool = True
) -> list[Piece]:
    """Write a conversation as pieces.

    Args:
        messages: the conversation, tools and dates included.
        style: how the calls in it are spelled.
        continue_last: see `ChatFormat.encode_chat`.
        has_images: the model takes pictures.

    Raises:
        PromptFormatError: the last message cannot be continued, a call cannot be spelled, or there is a
            picture and the model takes none.
    """
    if continue_last:
        check_continues(messages)
    pieces: list[Piece] = [_BEGIN]
    for message in messages:
        pieces += _header(type(message))
        content = content_pieces(message.content, has_images=has_images)
        if isinstance(message, Assistant):
            content = assistant_pieces(content, message.tool_calls, style)
        elif isinstance(message, User) and message.context is not None:
            content += ["\n\n", *content_pieces(message.context, has_images=has_images)]
        pieces += content
        waits = isinstance(message, Assistant) and not message.ends_turn
        pieces.append(_END_OF_MESSAGE if waits else _END_OF_TURN)
    return pieces[:-1] if continue_last else pieces + _header(Assistant)


def content_pieces(content: Content, *, has_images: bool) -> list[Piece]:
    """A content's texts, and the image token for each picture.

    Raises:
        PromptFormatError: there is a picture and the model takes none.
    """
    pieces: list[Piece] = []
    for part in parts_of(content):
        if isinstance(part, Image) and not has_images:
            raise PromptFormatError(
                "this model reads text only, and a message has a picture in it; use a vision model, such as "
                "llama3.2-11b-vision-instruct"
            )
        pieces.append(Special(IMAGE_TOKEN) if isinstance(part, Image) else part)
    return pieces


def _header(role: type[Message]) -> list[Piece]:
    return [_START_HEADER, _ROLE_NAMES[role], _END_HEADER, "\n\n"]


class Llama3Format:
    """Headers with the role's name, two newlines, the text, and an end mark; no text is trimmed.

    Header, newlines and the parts of a text are encoded apart, because the reference does so and the ids
    differ where a text begins with newlines. Any order of roles is accepted.

    Source: llama-models 0.3.0, ``llama3/chat_format.py``.

    Attributes:
        name: the family's.
        stop_ids: tokens after which the model is done.
        call_form: how it spells calls of custom tools.
        family: what the model was taught.
        image_id: token that stands for a picture, None where the model takes none.
    """

    def __init__(
        self, tokenizer: Tokenizer, family_name: str = "llama3.1", *, style: CallStyle | None = None
    ) -> None:
        """Look up the special tokens.

        Args:
            tokenizer: a Llama 3 vocabulary, by whatever names it has for its reserved tokens.
            family_name: one of `puna.prompt.family.FAMILIES`.
            style: how calls in a conversation are spelled; None for the family's usual form, escaped.

        Raises:
            PromptFormatError: the family is unknown, or one of `LLAMA3_MARKS` is not a special token of the
                vocabulary.
        """
        for text in LLAMA3_MARKS:
            if text not in tokenizer.special_tokens:
                raise PromptFormatError(
                    f"the Llama 3 chat format needs the special token {text!r}, which the vocabulary lacks"
                )
        self._tokenizer = tokenizer
        self.family: Family = family(family_name)
        self.name = self.family.name
        self._style = style or CallStyle(form=next(iter(self.family.tool_forms), "json"))
        self.call_form = self._style.form
        self.image_id = _image_id(tokenizer) if self.family.reads_images else None
        self._ids = dict(tokenizer.special_tokens)
        # The first Llama 3 had no calls to wait for, and so no token for it.
        self._ids.setdefault(_END_OF_MESSAGE.text, self._ids[_END_OF_TURN.text])
        if tokenizer.bos_id is not None:
            self._ids.setdefault(_BEGIN.text, tokenizer.bos_id)
        if self.image_id is not None:
            self._ids[IMAGE_TOKEN] = self.image_id
        ends = (_END_OF_TURN.text, _END_OF_MESSAGE.text, "<|end_of_text|>")
        self.stop_ids = frozenset({*tokenizer.eos_ids, *(self._ids[t] for t in ends if t in self._ids)})

    def encode_chat(
        self, messages: Sequence[Message], *, continue_last: bool = False, preamble: Preamble | None = None
    ) -> list[int]:
        """See `ChatFormat.encode_chat`.

        Raises:
            PromptFormatError: as `llama3_pieces`, or the preamble does not suit the family.
        """
        style = self._style
        if preamble is not None:
            messages = with_preamble(messages, preamble, self.family)
            style = style.with_form(preamble.tool_form)
        return self.encode_pieces(
            llama3_pieces(messages, style, continue_last=continue_last, has_images=self.image_id is not None)
        )

    def encode_text(self, content: Content) -> list[int]:
        """See `ChatFormat.encode_text`; no parts at all give no token at all, as in the reference."""
        pieces = content_pieces(content, has_images=self.image_id is not None)
        opens = self._tokenizer.add_bos and bool(pieces)
        return self.encode_pieces([_BEGIN, *pieces] if opens else pieces)

    def encode_pieces(self, pieces: Iterable[Piece]) -> list[int]:
        """Token ids of pieces, each encoded by itself.

        Raises:
            PromptFormatError: the vocabulary lacks a special token that is in them.
        """
        ids: list[int] = []
        for piece in pieces:
            if not isinstance(piece, Special):
                ids += self._tokenizer.encode(piece)
            elif piece.text in self._ids:
                ids.append(self._ids[piece.text])
            elif piece is not _BEGIN:
                raise PromptFormatError(
                    f"this conversation needs the special token {piece.text!r}, which the vocabulary lacks"
                )
        return ids


def _image_id(tokenizer: Tokenizer) -> int:
    # Meta's vocabulary has a token of that name too, but the model reads one behind its 128,256 rows.
    named = tokenizer.special_id(IMAGE_TOKEN)
    return IMAGE_ID if named is None else max(named, IMAGE_ID)
