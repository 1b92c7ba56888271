"""tokenizer.json: what the checkpoint reader takes from it, and the tokenizer that it makes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.harness import main

from puna.models.huggingface import read_vocabulary
from puna.models.tokenizer_json import (
    BYTE_CHARACTERS,
    LLAMA3_PATTERN,
    TokenizerJson,
    added_token,
    bpe_tokenizer_json,
    split_by_pattern,
    token_table,
)
from puna.tokens import Tokenizer

TEXT = "Hello, llama 123 \U0001f999 <|end|>"


def tokenizer_json() -> TokenizerJson:
    table = token_table([*BYTE_CHARACTERS, "ll", "<|end|>"])
    table.add_merges([(b"l", b"l")])
    added = [added_token(257, "<|end|>", special=True)]
    cut = split_by_pattern(LLAMA3_PATTERN)
    return bpe_tokenizer_json(table, added, pre_tokenizer=cut)


def seeds() -> list[bytes]:
    # Steps that other tokenizers have, so that damage to them is tried too.
    full = json.loads(tokenizer_json().to_bytes())
    full["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}]}
    full["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|end|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [257], "tokens": ["<|end|>"]}},
    }
    full["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    full["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!",
    }  # fmt: skip
    full["model"] |= {"unk_token": "!", "fuse_unk": True, "byte_fallback": True, "ignore_merges": True}
    return [tokenizer_json().to_bytes(), json.dumps(full).encode()]


def parse(data: bytes, folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(data)
    tokenizer = Tokenizer(read_vocabulary(folder, 300))
    tokenizer.decode(tokenizer.encode(TEXT))


if __name__ == "__main__":
    main(seeds, parse)
