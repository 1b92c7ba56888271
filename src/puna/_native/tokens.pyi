"""Byte-pair encoding."""

from collections.abc import Callable, Sequence

import puna.errors


class TokenizerError(puna.errors.TokenizerError):
    pass

class TokenTable:
    """Tokens by id and spelling, and the merges that build them."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """Tokens by their spelling, with ids from 0 on, and no merges."""

    @staticmethod
    def from_json(text: bytes) -> tuple[TokenTable, bytes]:
        """What a tokenizer.json has; the second is the document without it."""

    @staticmethod
    def from_tiktoken(text: bytes) -> TokenTable:
        """What Llama 3's tokenizer.model has."""

    def add_merges(self, merges: Sequence[tuple[bytes, bytes]]) -> None:
        """Pairs of tokens in the order in which they merge."""

    def add_merges_by_rank(self, tokens: Sequence[int]) -> None:
        """
        Every way to put one of these together from two of them, in their order.
        """

    def find(self, spelling: bytes) -> int:
        """The id of a token, -1 where there is none."""

    @property
    def size(self) -> int:
        """One more than the highest id."""

    def vocab_json(self) -> bytes: ...

    def merges_json(self) -> bytes: ...

def matches(pattern: bytes, is_literal: bool, text: bytes) -> list[tuple[int, int]]:
    """Where a pattern matches, from byte to byte, for tests."""

class Step:
    """A change of a text, or a cut, before merging."""

    @staticmethod
    def prepend(text: bytes, when: str) -> Step: ...

    @staticmethod
    def replace(pattern: bytes, is_literal: bool, content: bytes) -> Step: ...

    @staticmethod
    def call(function: Callable[[bytes], bytes]) -> Step: ...

    @staticmethod
    def split(pattern: bytes, is_literal: bool, behavior: str, is_inverted: bool) -> Step: ...

class AddedToken:
    def __init__(self, *, id: int, text: bytes, is_special: bool, takes_left: bool, takes_right: bool, is_normalized: bool) -> None: ...

class Encoder:
    def __init__(self, *, table: TokenTable, normalizers: Sequence[Step], pre_tokenizers: Sequence[Step], added_tokens: Sequence[AddedToken], is_byte_level: bool, ignores_merges: bool, has_byte_fallback: bool, fuses_unknown: bool, unknown: int, most_characters: int, most_run: int) -> None: ...

    def encode(self, text: bytes, continues: bool) -> list[int]:
        """Tokens of a text; continues: something is before it."""

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for."""

    def has(self, id: int) -> bool:
        """Whether the vocabulary has that id."""

    @property
    def size(self) -> int:
        """One more than the highest id."""
