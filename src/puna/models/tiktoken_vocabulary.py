"""Llama 3's ``tokenizer.model``: a list of byte strings and ranks in the form of the tiktoken library."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from itertools import accumulate

from puna.errors import CheckpointError
from puna.models.tokenizer_json import (
    BYTE_CHARACTERS,
    LLAMA3_PATTERN,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENS,
    added_token,
    bpe_tokenizer_json,
    merges_by_rank,
    split_by_pattern,
)

__all__ = ["LLAMA3_SPECIAL_TOKENS", "tokenizer_json_from_tiktoken"]

_NAMED = (
    "begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1",
    "finetune_right_pad_id", "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id",
    "python_tag", "image",
)  # fmt: skip

LLAMA3_SPECIAL_TOKENS = tuple(
    f"<|{name}|>" for name in (*_NAMED, *(f"reserved_special_token_{i}" for i in range(2, 246)))
)
"""The 256 special tokens of Llama 3.1 and later, as Meta names them; their ids follow those of the file."""

_SPELLED = dict(enumerate(BYTE_CHARACTERS))


def tokenizer_json_from_tiktoken(
    data: bytes, special_tokens: Sequence[str] = LLAMA3_SPECIAL_TOKENS, pattern: str = LLAMA3_PATTERN
) -> str:
    """Turn a tiktoken vocabulary into a Hugging Face ``tokenizer.json`` that gives the same ids.

    Args:
        data: the file: a line for each token, its bytes in base64, a space and its rank.
        special_tokens: texts of the special tokens; their ids follow the last rank.
        pattern: the regular expression that cuts a text before merging.

    Returns:
        The contents of a ``tokenizer.json``.

    Raises:
        CheckpointError: a line is not of that form, ranks are not 0, 1, 2, ... in order, or a token
            is there twice.
    """
    tokens = _read_tokens(data)
    vocabulary = {token: rank for rank, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise CheckpointError(
            f"tokenizer.model: {len(tokens) - len(vocabulary)} tokens are there twice; the file is damaged"
        )
    added = [added_token(len(tokens) + i, text, special=True) for i, text in enumerate(special_tokens)]
    return bpe_tokenizer_json(
        vocabulary,
        merges_by_rank(tokens),
        added,
        pre_tokenizer=split_by_pattern(pattern),
        ignore_merges=True,
    )


def _read_tokens(data: bytes) -> list[str]:
    lines = data.split(b"\n", MAX_TOKENS + 1)
    if lines[-1] == b"":
        lines.pop()
    if not 1 <= len(lines) <= MAX_TOKENS:
        raise CheckpointError(f"tokenizer.model: needs 1 to {MAX_TOKENS} lines, got {len(lines)} or more")
    tokens = []
    for expected, line in enumerate(lines):
        encoded, _, rank = line.partition(b" ")
        try:
            token = binascii.a2b_base64(encoded, strict_mode=True)
        except binascii.Error:
            token = b""
        if not 1 <= len(token) <= MAX_TOKEN_CHARACTERS or rank != b"%d" % expected:
            raise CheckpointError(
                f"tokenizer.model: line {expected + 1} must be base64, a space and the rank {expected}, "
                f"got {line[:80]!r}"
            )
        tokens.append(token)
    # All at once, which is quicker: Latin-1 gives each byte the character of the same number.
    spelled = b"".join(tokens).decode("latin-1").translate(_SPELLED)
    ends = accumulate(map(len, tokens))
    return [spelled[end - len(token) : end] for token, end in zip(tokens, ends, strict=True)]
