"""Vocabularies that several packages' tests read."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from puna.models.checkpoint import Vocabulary
from puna.models.gguf import GgufCheckpoint
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf
from puna.models.tiktoken_vocabulary import tokenizer_json_from_tiktoken
from puna.models.tokenizer_json import BYTE_CHARACTERS
from puna.tokens import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def golden() -> Any:
    """Reads a file of golden vectors: one object for each line."""

    def read(name: str) -> list[dict[str, Any]]:
        # Not splitlines, for which other characters end a line too.
        lines = (GOLDEN / name).read_text(encoding="utf-8").rstrip("\n").split("\n")
        assert lines
        return [json.loads(line) for line in lines]

    return read


@pytest.fixture(scope="session")
def llama3_data() -> bytes:
    """Llama 3's tokenizer.model, from the reference implementation."""
    files = importlib.metadata.files("llama-models") or []
    path = next(file for file in files if file.as_posix() == "llama_models/llama3/tokenizer.model")
    return path.read_binary()


@pytest.fixture(scope="session")
def llama3_vocabulary(llama3_data: bytes) -> Vocabulary:
    text = tokenizer_json_from_tiktoken(llama3_data)
    return Vocabulary(tokenizer_json=text, bos_id=128000, eos_ids=(128001,), add_bos=True)


@pytest.fixture(scope="session")
def llama3(llama3_vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(llama3_vocabulary)


@pytest.fixture(scope="session")
def smollm_vocabulary(default_gguf: Path) -> Vocabulary:
    return GgufCheckpoint(default_gguf).vocabulary()


@pytest.fixture(scope="session")
def smollm(smollm_vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(smollm_vocabulary)


@pytest.fixture
def tiny_metadata() -> dict[str, Any]:
    """GGUF keys of a byte-level vocabulary: 3 control tokens, a user-defined one, 256 bytes, 3 merges."""
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
    merged = ["ab", "abc", "Ġab"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*added, *BYTE_CHARACTERS, *merged],
        "tokenizer.ggml.token_type": [3, 3, 3, 4] + [1] * (256 + len(merged)),
        "tokenizer.ggml.merges": ["a b", "ab c", "Ġ ab"],
    }


@pytest.fixture
def tiny_vocabulary(tiny_metadata: dict[str, Any]) -> Vocabulary:
    return Vocabulary(
        tokenizer_json=tokenizer_json_from_gguf(tiny_metadata),
        bos_id=1,
        eos_ids=(2,),
        special_tokens={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
    )


@pytest.fixture
def tiny(tiny_vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(tiny_vocabulary)


# Llama 2's kind of vocabulary: unknown, two control tokens, bytes, then pieces from the best to the worst.
PIECES = ["\u2581", "a", "b", "c", "\u2581a", "ab", "bc", "abc", "\u2581ab", "ca", "aa", "\u2581\u2581", "é"]


@pytest.fixture(scope="session")
def llama2_vocabulary() -> Vocabulary:
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    text = tokenizer_json_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": [*first, *PIECES],
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(PIECES),
            "tokenizer.ggml.scores": [0.0] * len(first) + [-float(i) for i in range(len(PIECES))],
        }
    )
    return Vocabulary(tokenizer_json=text, bos_id=1, eos_ids=(2,), add_bos=True)
