"""Decoding while tokens arrive: text is handed out as soon as it is certain, and not before."""

from __future__ import annotations

import codecs

from puna.tokens.tokenizer import Tokenizer

__all__ = ["TextStream"]


class TextStream:
    """Turns a stream of token ids into text; the joined pieces equal `Tokenizer.decode` of all ids."""

    def __init__(self, tokenizer: Tokenizer, *, show_special: bool = False) -> None:
        """Start with nothing decoded.

        Args:
            tokenizer: the vocabulary.
            show_special: whether special tokens are written out or left out.
        """
        self._tokenizer = tokenizer
        self._show_special = show_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = tokenizer.drops_first_space

    def push(self, token_id: int) -> str:
        """Add a token.

        Args:
            token_id: the next token of the stream.

        Returns:
            The text that is complete with it: empty while a character is unfinished.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if self._tokenizer.is_special(token_id) and not self._show_special:
            return ""
        return self._take(self._decoder.decode(self._tokenizer.token_bytes(token_id)))

    def finish(self) -> str:
        """End the stream: U+FFFD for an unfinished character, else nothing."""
        return self._take(self._decoder.decode(b"", final=True))

    def _take(self, text: str) -> str:
        if text and self._drop_space:
            self._drop_space = False
            return text.removeprefix(" ")
        return text
