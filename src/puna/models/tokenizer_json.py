"""The one form in which vocabularies travel through Puna: a Hugging Face ``tokenizer.json``, taken apart.

Tokens and merges, 128,000 and 280,000 of them in Llama 3, are a table of the native library and never
Python objects; the small rest is a dictionary. The readers of other vocabularies (`gguf_vocabulary.py`,
`sentencepiece_vocabulary.py`, `tiktoken_vocabulary.py`) make a table and end with `bpe_tokenizer_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna._native.tokens import TokenTable
from puna.errors import CheckpointError, TokenizerError
from puna.models.files import parse_json_object

__all__ = [
    "BYTE",
    "BYTE_CHARACTERS",
    "BYTE_LEVEL_DECODER",
    "CONTROL",
    "GPT2_PATTERN",
    "LLAMA3_PATTERN",
    "MAX_TOKENS",
    "MAX_TOKEN_CHARACTERS",
    "NORMAL",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "TokenizerJson",
    "added_token",
    "bpe_tokenizer_json",
    "split_by_pattern",
    "token_table",
]

# Limits for vocabularies from outside: eight times Llama 3's on both counts.
MAX_TOKENS = 1_048_576
MAX_TOKEN_CHARACTERS = 1_024

# Kinds of token, in the numbers that sentencepiece and GGUF give them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts a text before byte-pair encoding (a regular expression in Oniguruma's syntax)."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How a ``ByteLevel`` pre-tokenizer cuts a text."""

BYTE_LEVEL_DECODER: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}


def _byte_characters() -> str:
    # GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100 on.
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in plain else next(moved)) for byte in range(256))


BYTE_CHARACTERS = _byte_characters()
"""The character that stands for each byte in a byte-level vocabulary: ``BYTE_CHARACTERS[byte]``."""


def added_token(token_id: int, text: str, *, special: bool) -> dict[str, Any]:
    """One entry of ``added_tokens``: a token that is matched whole and never built by merges."""
    return {
        "id": token_id,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def split_by_pattern(pattern: str) -> dict[str, Any]:
    """The pre-tokenizer that cuts a text at every match of a pattern, then spells it in byte characters."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    spell = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, spell]}


@dataclass(frozen=True, slots=True)
class TokenizerJson:
    """A ``tokenizer.json``: what it says, and its tokens and merges apart.

    Attributes:
        document: the file, with ``{}`` for its model's ``vocab`` and ``[]`` for its ``merges``.
        table: those.
    """

    document: dict[str, Any]
    table: TokenTable

    @classmethod
    def from_text(cls, text: str | bytes) -> TokenizerJson:
        """Read a file.

        Args:
            text: its contents; bytes must be UTF-8.

        Returns:
            The file, its tokens and merges checked.

        Raises:
            TokenizerError: it is no sound JSON, not byte-pair encoding, or contradicts itself.
        """
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        try:
            table, rest = TokenTable.from_json(data)
            document = parse_json_object(rest.decode(), "tokenizer.json")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"tokenizer.json: needs UTF-8 text: {error}") from error
        except CheckpointError as error:
            raise TokenizerError(str(error)) from error
        except TokenizerError as error:
            raise TokenizerError(f"tokenizer.json: {error}") from error
        model = document.get("model")
        kind = model.get("type") if isinstance(model, dict) else model
        if not isinstance(model, dict) or kind != "BPE":
            raise TokenizerError(
                f"tokenizer.json: the model type must be 'BPE', as in every Llama, got {kind!r:.100}"
            )
        for key, empty in (("vocab", {}), ("merges", [])):
            if model.get(key) != empty:
                kind = "an object" if key == "vocab" else "a list"
                raise TokenizerError(
                    f"tokenizer.json: the model's `{key}` must be {kind}, got {model.get(key)!r:.80}"
                )
        return cls(document, table)

    def to_bytes(self) -> bytes:
        """The file's contents, in UTF-8."""
        model = {k: v for k, v in self.document["model"].items() if k not in ("vocab", "merges")}
        rest = {k: v for k, v in self.document.items() if k != "model"}
        # Escaped, as the text of an added token may hold half a surrogate pair.
        parts = [f"{json.dumps(key)}: {json.dumps(value)}".encode() for key, value in rest.items()]
        parts.append(
            b'"model": %s, "vocab": %s, "merges": %s}'
            % (json.dumps(model)[:-1].encode(), self.table.vocab_json(), self.table.merges_json())
        )
        return b"{%s}\n" % b", ".join(parts)


def token_table(tokens: Sequence[str]) -> TokenTable:
    """A table of tokens whose ids go from 0 on, without merges.

    Raises:
        TokenizerError: a token has half a surrogate pair, or is there twice.
    """
    return TokenTable([token.encode("utf-8", "surrogatepass") for token in tokens])


def bpe_tokenizer_json(
    table: TokenTable,
    added_tokens: Sequence[Mapping[str, Any]],
    *,
    pre_tokenizer: Mapping[str, Any] | None,
    decoder: Mapping[str, Any] = BYTE_LEVEL_DECODER,
    normalizer: Mapping[str, Any] | None = None,
    ignore_merges: bool = False,
    byte_fallback: bool = False,
    unknown_token: str | None = None,
) -> TokenizerJson:
    """Describe byte-pair encoding as a ``tokenizer.json`` does.

    Args:
        table: tokens and merges.
        added_tokens: entries made by `added_token`.
        pre_tokenizer: how a text is cut before merging, None where it is not.
        decoder: how tokens turn back into text.
        normalizer: what happens to a text first.
        ignore_merges: a piece that is itself a token is that token, whatever the merges say.
        byte_fallback: characters without a token are spelled ``<0x41>``.
        unknown_token: the token for what cannot be spelled at all.

    Returns:
        The file.
    """
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added_tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown_token,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": unknown_token is not None,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": {},
            "merges": [],
        },
    }
    return TokenizerJson(document, table)
