"""JSON whose numbers and names end: a small model may go on in them for ever, and JSON's grammar lets it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from puna.tokens import Tokenizer

__all__ = ["JsonEnds", "JsonVocabulary"]

_LONGEST_NUMBER = 20  # digits of 2**64; a double has 17
_LONGEST_NAME = 256  # bytes
_DIGITS = b"0123456789"


class JsonVocabulary:
    """What a vocabulary's tokens begin with.

    Attributes:
        digits: words of a mask of the tokens that begin with a digit.
        quotes: of those that begin with a quotation mark.
    """

    def __init__(self, tokenizer: Tokenizer, n_tokens: int, n_words: int) -> None:
        """Look at a vocabulary.

        Args:
            tokenizer: what each token stands for.
            n_tokens: how many there are.
            n_words: words of a mask.
        """
        self._tokenizer = tokenizer
        firsts = [(tokenizer.bytes_or_none(token) or b"")[:1] for token in range(n_tokens)]
        self.digits = _mask([first != b"" and first in _DIGITS for first in firsts], n_words)
        self.quotes = _mask([first == b'"' for first in firsts], n_words)

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for."""
        return self._tokenizer.bytes_or_none(token) or b""


class JsonEnds:
    """Follows an answer in JSON, and ends numbers and names that are too long, where the schema lets it.

    Texts may have any length: what a model writes there is content.
    """

    def __init__(self, vocabulary: JsonVocabulary) -> None:
        """Start before an answer.

        Args:
            vocabulary: the model's.
        """
        self._vocabulary = vocabulary
        self._place = _Place()

    def take(self, token: int) -> None:
        """Go on by a token of the answer."""
        self._place.take(self._vocabulary.bytes_of(token))

    def restrict(self, masks: NDArray[np.uint32], guess: Sequence[int]) -> None:
        """Take out of masks what would go on for too long.

        Args:
            masks: ``[1 + guess, words]``, what the constraint allows; changed in place.
            guess: tokens that the rows behind the first stand behind.
        """
        for row, place in zip(masks, self._places(guess), strict=True):
            if place.is_long_number:
                rest = row & ~self._vocabulary.digits
            elif place.is_long_name:
                rest = row & self._vocabulary.quotes
            else:
                continue
            if rest.any():
                row[:] = rest

    def restricts(self, guess: Sequence[int]) -> bool:
        """Whether `restrict` would look at any of the masks."""
        return any(place.is_long_number or place.is_long_name for place in self._places(guess))

    def _places(self, guess: Sequence[int]) -> Iterator[_Place]:
        """Where the answer is, and where it would be after each token of a guess."""
        place = copy(self._place) if guess else self._place
        yield place
        for token in guess:
            place.take(self._vocabulary.bytes_of(token))
            yield place


class _Place:
    """Where in a JSON text its end is, whose beginning is known to be right.

    Attributes:
        closers: a byte for each object and list that is open.
    """

    def __init__(self) -> None:
        self.closers = b""
        self._is_text = self._is_name = self._is_escaped = False
        self._expects_name = False
        self._length = 0  # of the name or the number, bytes

    @property
    def is_long_number(self) -> bool:
        """Whether it is in a number that has many digits in a row."""
        return not self._is_text and self._length >= _LONGEST_NUMBER

    @property
    def is_long_name(self) -> bool:
        """Whether it is in a long name of a property, and could end it."""
        return self._is_name and not self._is_escaped and self._length >= _LONGEST_NAME

    def take(self, text: bytes) -> None:
        """Go on."""
        for byte in text:
            if self._is_text:
                self._take_in_text(byte)
            else:
                self._take_outside(byte)

    def _take_in_text(self, byte: int) -> None:
        self._length += 1
        if self._is_escaped:
            self._is_escaped = False
        elif byte == ord("\\"):
            self._is_escaped = True
        elif byte == ord('"'):
            self._is_text = self._is_name = False
            self._length = 0

    def _take_outside(self, byte: int) -> None:
        if byte in _DIGITS:
            self._length += 1
            return
        self._length = 0
        if byte == ord('"'):
            self._is_text, self._is_name = True, self._expects_name
            self._expects_name = False
        elif byte in b"{[":
            self.closers += b"}" if byte == ord("{") else b"]"
            self._expects_name = byte == ord("{")
        elif byte in b"}]":
            self.closers = self.closers[:-1]
            self._expects_name = False
        elif byte == ord(","):
            self._expects_name = self.closers.endswith(b"}")


def _mask(bits: Sequence[bool], n_words: int) -> NDArray[np.uint32]:
    padded = np.zeros(32 * n_words, np.bool_)
    padded[: len(bits)] = bits
    return np.packbits(padded, bitorder="little").view("<u4").astype(np.uint32)
