"""tokenizer.json: what the checkpoint reader takes from it, and the tokenizer that it makes."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.harness import main

from puna.models.huggingface import read_vocabulary
from puna.models.tokenizer_json import (
    BYTE_CHARACTERS,
    LLAMA3_PATTERN,
    added_token,
    bpe_tokenizer_json,
    split_by_pattern,
)
from puna.tokens import Tokenizer

TEXT = "Hello, llama 123 \U0001f999 <|end|>"


def seeds() -> list[bytes]:
    tokens = [*BYTE_CHARACTERS, "ll", "<|end|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    added = [added_token(257, "<|end|>", special=True)]
    cut = split_by_pattern(LLAMA3_PATTERN)
    return [bpe_tokenizer_json(vocabulary, [("l", "l")], added, pre_tokenizer=cut).encode()]


def parse(data: bytes, folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(data)
    tokenizer = Tokenizer(read_vocabulary(folder, 300))
    tokenizer.decode(tokenizer.encode(TEXT))


if __name__ == "__main__":
    main(seeds, parse)
