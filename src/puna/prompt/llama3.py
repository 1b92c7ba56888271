"""The chat format of Llama 3, 3.1, 3.2 and 3.3, token for token as Meta's reference writes it."""

from __future__ import annotations

from collections.abc import Sequence

from puna.errors import PromptFormatError
from puna.prompt.format import check_continues, encode_plain
from puna.prompt.messages import Assistant, Message, System, Tool, User
from puna.tokens import Tokenizer

__all__ = ["LLAMA3_MARKS", "Llama3Format"]

LLAMA3_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""The special tokens without which there is no Llama 3 format."""

_ROLE_NAMES: dict[type[Message], str] = {
    System: "system",
    User: "user",
    Assistant: "assistant",
    Tool: "ipython",
}


class Llama3Format:
    """Headers with the role's name, two newlines, the text, and an end mark; no text is trimmed.

    Header, newlines and text are encoded apart, because the reference does so and the ids differ
    where a text begins with newlines. Any order of roles is accepted.

    Source: llama-models 0.3.0, ``llama3/chat_format.py``.
    """

    name = "llama3"

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look up the special tokens.

        Args:
            tokenizer: a Llama 3 vocabulary, by whatever names it has for its reserved tokens.

        Raises:
            PromptFormatError: one of `LLAMA3_MARKS` is not a special token of the vocabulary.
        """
        self._tokenizer = tokenizer
        for text in LLAMA3_MARKS:
            if text not in tokenizer.special_tokens:
                raise PromptFormatError(
                    f"the Llama 3 chat format needs the special token {text!r}, which the vocabulary lacks"
                )
        self._start_header, self._end_header, self._end_of_turn = map(
            tokenizer.special_tokens.__getitem__, LLAMA3_MARKS
        )
        # The first Llama 3 had no calls to wait for, and so no token for it.
        end_of_message = tokenizer.special_id("<|eom_id|>")
        self._end_of_message = self._end_of_turn if end_of_message is None else end_of_message
        begin = tokenizer.special_id("<|begin_of_text|>")
        self._opening = [i for i in (tokenizer.bos_id if begin is None else begin,) if i is not None]
        end_of_text = tokenizer.special_id("<|end_of_text|>")
        stops = {*tokenizer.eos_ids, self._end_of_turn, self._end_of_message, end_of_text}
        self.stop_ids = frozenset(i for i in stops if i is not None)
        self._newlines = tokenizer.encode("\n\n")

    def encode_chat(self, messages: Sequence[Message], *, continue_last: bool = False) -> list[int]:
        """See `ChatFormat.encode_chat`.

        Raises:
            PromptFormatError: `continue_last` is set and the last message is not the assistant's.
        """
        if continue_last:
            check_continues(messages)
        ids = [*self._opening]
        for message in messages:
            ids += self._header(type(message))
            ids += self._tokenizer.encode(message.text)
            waits = isinstance(message, Assistant) and not message.ends_turn
            ids.append(self._end_of_message if waits else self._end_of_turn)
        return ids[:-1] if continue_last else ids + self._header(Assistant)

    def encode_text(self, text: str) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return encode_plain(self._tokenizer, text)

    def _header(self, role: type[Message]) -> list[int]:
        name = self._tokenizer.encode(_ROLE_NAMES[role])
        return [self._start_header, *name, self._end_header, *self._newlines]
