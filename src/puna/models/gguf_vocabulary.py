"""The vocabulary inside a GGUF file, turned into the ``tokenizer.json`` that the rest of Puna reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puna.errors import CheckpointError, nearest
from puna.models.sentencepiece_vocabulary import added_tokens, sentencepiece_tokenizer_json
from puna.models.tokenizer_json import (
    BYTE,
    CONTROL,
    LLAMA3_PATTERN,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENS,
    NORMAL,
    UNKNOWN,
    UNUSED,
    TokenizerJson,
    bpe_tokenizer_json,
    split_by_pattern,
    token_table,
)

__all__ = ["pre_tokenizer_name", "tokenizer_json_from_gguf"]

# Llama 3 has 280,147 merges.
_MAX_MERGES = 4 * MAX_TOKENS

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SINGLE_DIGITS = {"type": "Digits", "individual_digits": True}
_SMOLLM = {"type": "Sequence", "pretokenizers": [_SINGLE_DIGITS, _GPT2]}
_LLAMA3 = split_by_pattern(LLAMA3_PATTERN)

# `tokenizer.ggml.pre` -> (how a text is cut, whether a piece that is a token skips the merges).
_PRE_TOKENIZERS: dict[str, tuple[dict[str, Any], bool]] = {
    "default": (_GPT2, False),
    "gpt-2": (_GPT2, False),
    "llama-bpe": (_LLAMA3, True),
    "llama-v3": (_LLAMA3, True),
    "llama3": (_LLAMA3, True),
    "smollm": (_SMOLLM, False),
}


def pre_tokenizer_name(pre_tokenizer: object, ignore_merges: bool) -> str | None:
    """The name under which a file says how a byte-level vocabulary cuts a text.

    Args:
        pre_tokenizer: that section of a ``tokenizer.json``.
        ignore_merges: whether a piece that is a token skips the merges.

    Returns:
        A value of ``tokenizer.ggml.pre`` that llama.cpp knows too; None where there is none.
    """
    names = ("gpt-2", "llama-bpe", "smollm")
    return next((name for name in names if _PRE_TOKENIZERS[name] == (pre_tokenizer, ignore_merges)), None)


def tokenizer_json_from_gguf(metadata: Mapping[str, Any]) -> TokenizerJson:
    """Turn the ``tokenizer.ggml.*`` keys of a GGUF file into a Hugging Face ``tokenizer.json``.

    Control tokens and the unknown token become special added tokens, user-defined tokens become
    added tokens that are matched in any text. The names that llama.cpp's converter gives to rows behind the
    vocabulary, ``[PAD32000]``, become no tokens.

    Args:
        metadata: every key of the file, as plain Python lists, numbers and strings.

    Returns:
        The ``tokenizer.json``.

    Raises:
        CheckpointError: the vocabulary is of a kind that Puna does not read, or it contradicts itself.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(metadata)
    if kind == "llama":
        return _sentencepiece(metadata)
    raise CheckpointError(
        f"GGUF: `tokenizer.ggml.model` must be 'gpt2' or 'llama', got {kind!r}; no other vocabulary belongs "
        "to a Llama"
    )


def _byte_level(metadata: Mapping[str, Any]) -> TokenizerJson:
    tokens, types = _read_tokens(metadata)
    pre_name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(pre_name, str) or pre_name not in _PRE_TOKENIZERS:
        raise CheckpointError(
            f"GGUF: `tokenizer.ggml.pre` {pre_name!r} is a way to cut text that Puna does not know; "
            + nearest(str(pre_name), _PRE_TOKENIZERS)
        )
    if metadata.get("tokenizer.ggml.add_space_prefix", False):
        raise CheckpointError("GGUF: `tokenizer.ggml.add_space_prefix` must be false for 'gpt2', got true")
    pre_tokenizer, ignore_merges = _PRE_TOKENIZERS[pre_name]
    table = token_table(tokens)
    table.add_merges(_read_merges(metadata, tokens, types))
    return bpe_tokenizer_json(
        table,
        added_tokens(tokens, types),
        pre_tokenizer=pre_tokenizer,
        ignore_merges=ignore_merges,
    )


def _sentencepiece(metadata: Mapping[str, Any]) -> TokenizerJson:
    for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
        if metadata.get(f"tokenizer.ggml.{key}"):
            raise CheckpointError(
                f"GGUF: `tokenizer.ggml.{key}` changes the text before it is encoded; no Llama does that"
            )
    tokens, types = _read_tokens(metadata)
    return sentencepiece_tokenizer_json(
        "GGUF",
        tokens,
        _read_list(metadata, "scores", len(metadata["tokenizer.ggml.tokens"]), float)[: len(tokens)],
        types,
        add_space_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
    )


def _read_tokens(metadata: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    tokens: list[str] = _read_list(metadata, "tokens", None, str)
    if not 1 <= len(tokens) <= MAX_TOKENS:
        raise CheckpointError(f"GGUF: a vocabulary needs 1 to {MAX_TOKENS} tokens, got {len(tokens)}")
    types: list[int] = _read_list(metadata, "token_type", len(tokens), int)
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if not 1 <= len(token) <= MAX_TOKEN_CHARACTERS:
            raise CheckpointError(
                f"GGUF: token {i} must have 1 to {MAX_TOKEN_CHARACTERS} characters, got {len(token)}"
            )
        if not NORMAL <= kind <= BYTE:
            raise CheckpointError(f"GGUF: the type of token {i} must be from {NORMAL} to {BYTE}, got {kind}")
    if len(set(tokens)) != len(tokens):
        first: dict[str, int] = {}
        i = next(i for i, token in enumerate(tokens) if first.setdefault(token, i) != i)
        raise CheckpointError(f"GGUF: tokens {first[tokens[i]]} and {i} are both {tokens[i]!r}")
    n = len(tokens)
    while types[n - 1] == UNUSED and tokens[n - 1] == f"[PAD{n - 1}]":
        n -= 1
    return tokens[:n], types[:n]


def _read_list(metadata: Mapping[str, Any], name: str, length: int | None, kind: type) -> list[Any]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not set(map(type, value)) <= {kind}:
        found = sorted({type(item).__name__ for item in value}) if isinstance(value, list) else value
        raise CheckpointError(
            f"GGUF: `tokenizer.ggml.{name}` must be a list of {kind.__name__}, got {str(found)[:80]}"
        )
    if length is not None and len(value) != length:
        raise CheckpointError(
            f"GGUF: `tokenizer.ggml.{name}` must have {length} entries, one a token, got {len(value)}"
        )
    return value


def _read_merges(
    metadata: Mapping[str, Any], tokens: list[str], types: list[int]
) -> list[tuple[bytes, bytes]]:
    lines: list[str] = _read_list(metadata, "merges", None, str)
    if len(lines) > _MAX_MERGES:
        raise CheckpointError(
            f"GGUF: `tokenizer.ggml.merges` may have {_MAX_MERGES} entries, got {len(lines)}"
        )
    # Control tokens are left out: a merge that built one would let ordinary text become it.
    usable = {t for t, kind in zip(tokens, types, strict=True) if kind not in (UNKNOWN, CONTROL)}
    merges = []
    for i, line in enumerate(lines):
        left, _, right = line.partition(" ")
        if " " in right or left not in usable or right not in usable or left + right not in usable:
            raise CheckpointError(
                f"GGUF: merge {i} must be two ordinary tokens with a space between that together are a "
                f"third, got {line[:80]!r}"
            )
        merges.append((left.encode(), right.encode()))
    return merges
