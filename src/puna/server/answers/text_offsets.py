"""Where the tokens of a text begin."""

from __future__ import annotations

from puna.tokens import TextStream, Tokenizer

__all__ = ["TextOffsets"]


class TextOffsets:
    """Counts the characters before each token; the parts of a character all begin where it does.

    What has been sent does not tell: some is held back while it may become a stop text. Nor do the names of
    tokens: a part of a character has one too, and a special token that the text is without.
    """

    def __init__(self, tokenizer: Tokenizer, start: int = 0, *, show_special: bool = False) -> None:
        """Begin before the first token.

        Args:
            tokenizer: the model's.
            start: characters before it.
            show_special: whether the text has the names of special tokens.
        """
        self._stream = TextStream(tokenizer, show_special=show_special)
        self._n_characters = start

    def of(self, token: int) -> int:
        """Where the next token begins."""
        offset = self._n_characters
        self._n_characters += len(self._stream.push(token))
        return offset
