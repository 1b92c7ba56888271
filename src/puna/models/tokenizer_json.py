"""The one form in which vocabularies travel through Puna: the text of a Hugging Face ``tokenizer.json``.

The readers of other vocabularies (`gguf_vocabulary.py`, `sentencepiece_vocabulary.py`,
`tiktoken_vocabulary.py`) collect tokens and merges and end with `bpe_tokenizer_json`. The byte-level
alphabet, in which most vocabularies spell bytes as printable characters, is defined here once for those
that write it and those that read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BYTE",
    "BYTE_CHARACTERS",
    "BYTE_LEVEL_DECODER",
    "CONTROL",
    "LLAMA3_PATTERN",
    "MAX_TOKENS",
    "MAX_TOKEN_CHARACTERS",
    "NORMAL",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "Merges",
    "added_token",
    "bpe_tokenizer_json",
    "merges_by_rank",
    "split_by_pattern",
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


Merges = list[str] | list[tuple[str, str]]
"""Merges as a file has them: both parts with a space between, or pairs where a part has a space in it."""


def merges_by_rank(tokens: Sequence[str]) -> Merges:
    """Rebuild the merges of a vocabulary that only says which token to prefer.

    Args:
        tokens: every token that merging may build or use, the preferred first, no two alike.

    Returns:
        Each way to put a token together from two others, in the order of the tokens; pairs that
        build the same token are ordered by their parts.
    """
    if not tokens:
        return []
    text = "".join(tokens)
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    ends = np.cumsum(lengths)
    heads = _pieces_from(codes, ends - lengths, lengths, 1)
    tails = _pieces_from(codes, ends - 1, lengths, -1)
    whole = np.repeat(np.arange(len(tokens)), lengths)
    # A token may be cut behind a character where what is before and what is behind are tokens.
    cut = np.flatnonzero((heads[:-1] >= 0) & (tails[1:] >= 0) & (whole[:-1] == whole[1:]))
    left, right = heads[cut], tails[cut + 1]
    # Already in the order of the tokens, which a stable sort is quick with; the first part fixes the second.
    order = np.argsort(whole[cut] * len(tokens) + left, kind="stable")
    pairs = zip(left[order].tolist(), right[order].tolist(), strict=True)
    if " " in text:
        return [(tokens[i], tokens[j]) for i, j in pairs]
    return [f"{tokens[i]} {tokens[j]}" for i, j in pairs]


def _pieces_from(
    codes: NDArray[np.int64], first: NDArray[np.int64], lengths: NDArray[np.int64], step: int
) -> NDArray[np.int64]:
    """For each character of all tokens: the token that is spelled from its own token's end up to there.

    All tokens walk down one tree of characters together, a level at a time.

    Args:
        codes: characters of all tokens in a row.
        first: where each token's walk begins.
        lengths: characters of each token.
        step: 1 walks forwards, so that pieces are beginnings; -1 backwards, so that they are endings.

    Returns:
        A token's number, or -1 where that piece is no token.
    """
    found = np.full(len(codes), -1, np.int64)
    node = np.zeros(len(first), np.int64)
    walking = np.flatnonzero(lengths > 0)
    depth = 0
    while len(walking):
        position = first[walking] + step * depth
        branches, branch = np.unique(node[walking] * 0x110000 + codes[position], return_inverse=True)
        is_end = lengths[walking] == depth + 1
        token = np.full(len(branches), -1, np.int64)
        token[branch[is_end]] = walking[is_end]
        found[position] = token[branch]
        node[walking] = branch
        walking = walking[~is_end]
        depth += 1
    return found


def bpe_tokenizer_json(
    vocabulary: Mapping[str, int],
    merges: Merges,
    added_tokens: Sequence[Mapping[str, Any]],
    *,
    pre_tokenizer: Mapping[str, Any] | None,
    decoder: Mapping[str, Any] = BYTE_LEVEL_DECODER,
    normalizer: Mapping[str, Any] | None = None,
    ignore_merges: bool = False,
    byte_fallback: bool = False,
    unknown_token: str | None = None,
) -> str:
    """Write a ``tokenizer.json`` for byte-pair encoding.

    Args:
        vocabulary: token to id; holds the added tokens too, so that they keep their ids.
        merges: pairs in the order in which they apply.
        added_tokens: entries made by `added_token`.
        pre_tokenizer: how a text is cut before merging, None where it is not.
        decoder: how tokens turn back into text.
        normalizer: what happens to a text first.
        ignore_merges: a piece that is itself a token is that token, whatever the merges say.
        byte_fallback: characters without a token are spelled ``<0x41>``.
        unknown_token: the token for what cannot be spelled at all.

    Returns:
        The file's contents.
    """
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
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
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    try:
        text = json.dumps(document, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:  # a token with half a surrogate pair
        text = json.dumps(document)
    return text
