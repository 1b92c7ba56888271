"""Llama 3's ``tokenizer.model``: a list of byte strings and ranks in the form of the tiktoken library."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from puna._native.tokens import TokenTable
from puna.errors import CheckpointError, TokenizerError
from puna.models.tokenizer_json import (
    BYTE_CHARACTERS,
    LLAMA3_PATTERN,
    TokenizerJson,
    added_token,
    bpe_tokenizer_json,
    split_by_pattern,
)

__all__ = ["LLAMA3_SPECIAL_TOKENS", "tiktoken_from_tokenizer_json", "tokenizer_json_from_tiktoken"]

_NAMED = (
    "begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1",
    "finetune_right_pad_id", "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id",
    "python_tag", "image",
)  # fmt: skip

LLAMA3_SPECIAL_TOKENS = tuple(
    f"<|{name}|>" for name in (*_NAMED, *(f"reserved_special_token_{i}" for i in range(2, 246)))
)
"""The 256 special tokens of Llama 3.1 and later, as Meta names them; their ids follow those of the file."""


def tokenizer_json_from_tiktoken(
    data: bytes, special_tokens: Sequence[str] = LLAMA3_SPECIAL_TOKENS, pattern: str = LLAMA3_PATTERN
) -> TokenizerJson:
    """Turn a tiktoken vocabulary into a Hugging Face ``tokenizer.json`` that gives the same ids.

    Args:
        data: the file: a line for each token, its bytes in base64, a space and its rank.
        special_tokens: texts of the special tokens; their ids follow the last rank.
        pattern: the regular expression that cuts a text before merging.

    Returns:
        The ``tokenizer.json``.

    Raises:
        CheckpointError: a line is not of that form, ranks are not 0, 1, 2, ... in order, or a token
            is there twice.
    """
    try:
        table = TokenTable.from_tiktoken(data)
    except TokenizerError as error:
        raise CheckpointError(f"tokenizer.model: {error}") from error
    added = [added_token(table.size + i, text, special=True) for i, text in enumerate(special_tokens)]
    return bpe_tokenizer_json(table, added, pre_tokenizer=split_by_pattern(pattern), ignore_merges=True)


def tiktoken_from_tokenizer_json(tokenizer: TokenizerJson) -> bytes | None:
    """Turn Llama 3's vocabulary back into its ``tokenizer.model``.

    Args:
        tokenizer: any vocabulary.

    Returns:
        The file, or None where the vocabulary has anything that the file would not bring back: ids that are
        no ranks, other special tokens, another way of cutting a text.
    """
    ids: dict[str, int] = json.loads(tokenizer.table.vocab_json())
    byte_of = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
    if sorted(ids.values()) != list(range(len(ids))) or not set("".join(ids)) <= byte_of.keys():
        return None
    data = b"".join(
        base64.b64encode(bytes(byte_of[c] for c in token)) + b" %d\n" % rank
        for token, rank in sorted(ids.items(), key=lambda item: item[1])
    )
    return data if _same_ids(tokenizer_json_from_tiktoken(data), tokenizer) else None


def _same_ids(one: TokenizerJson, other: TokenizerJson) -> bool:
    def added(tokenizer: TokenizerJson) -> list[tuple[int, str]]:
        return [(token["id"], token["content"]) for token in tokenizer.document["added_tokens"]]

    def merges(tokenizer: TokenizerJson) -> list[str]:
        return sorted(map(str, json.loads(tokenizer.table.merges_json())))

    def cut(tokenizer: TokenizerJson) -> list[object]:
        step = tokenizer.document.get("pre_tokenizer") or {}
        return [part.get("pattern") for part in step.get("pretokenizers", [step])]

    return (
        added(one) == added(other)
        and cut(one) == cut(other)
        and not other.document.get("normalizer")
        and merges(one) == merges(other)
    )
