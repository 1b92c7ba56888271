"""GGUF: the container, the Llama in it, its vocabulary and its tensors."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.fuzz.harness import main

from puna.models.gguf import GgufCheckpoint
from puna.models.tokenizer_json import BYTE_CHARACTERS

U32, F32, STRING, ARRAY = 4, 6, 8, 9
WIDTH, TOKENS = 32, [*BYTE_CHARACTERS, "ab", "<|end_of_text|>"]
SHAPES = {
    "token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,),
    "blk.0.attn_q": (WIDTH, WIDTH), "blk.0.attn_k": (WIDTH, WIDTH), "blk.0.attn_v": (WIDTH, WIDTH),
    "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_norm": (WIDTH,), "blk.0.ffn_gate": (WIDTH, WIDTH),
    "blk.0.ffn_up": (WIDTH, WIDTH), "blk.0.ffn_down": (WIDTH, WIDTH),
}  # fmt: skip


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value


def _texts(values: list[str]) -> bytes:
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(_text, values))


def _keys(version: int) -> list[bytes]:
    numbers = {
        "embedding_length": WIDTH, "block_count": 1, "attention.head_count": 4, "feed_forward_length": WIDTH,
        "context_length": 64, "vocab_size": len(TOKENS),
    }  # fmt: skip
    types = struct.pack("<IQ", 5, len(TOKENS)) + struct.pack(f"<{len(TOKENS)}i", *[1] * (len(TOKENS) - 1), 3)
    return [
        _key("general.architecture", STRING, _text("llama")),
        *(_key(f"llama.{name}", U32, struct.pack("<I", value)) for name, value in numbers.items()),
        _key("llama.rope.freq_base", F32, struct.pack("<f", 10000.0 * version)),
        _key("tokenizer.ggml.model", STRING, _text("gpt2")),
        _key("tokenizer.ggml.pre", STRING, _text("llama-bpe")),
        _key("tokenizer.ggml.tokens", ARRAY, _texts(TOKENS)),
        _key("tokenizer.ggml.token_type", ARRAY, types),
        _key("tokenizer.ggml.merges", ARRAY, _texts(["a b"])),
        _key("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", len(TOKENS) - 1)),
    ]


def _file(version: int, storage: int, block_bytes: int) -> bytes:
    infos, data = b"", b""
    for name, shape in SHAPES.items():
        kind, row = (0, 4 * shape[-1]) if len(shape) == 1 else (storage, block_bytes)
        infos += _text(f"{name}.weight") + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ", kind, len(data))
        n_rows = 1 if len(shape) == 1 else shape[0]
        data += bytes(n_rows * row)
        data += bytes(-len(data) % 32)
    keys = _keys(version)
    header = b"GGUF" + struct.pack("<IQQ", version, len(SHAPES), len(keys)) + b"".join(keys) + infos
    return header + bytes(-len(header) % 32) + data


def seeds() -> list[bytes]:
    return [_file(3, 2, 18), _file(2, 8, 34), _file(3, 20, 18)]


def parse(data: bytes, folder: Path) -> None:
    path = folder / "m.gguf"
    path.write_bytes(data)
    checkpoint = GgufCheckpoint(path)
    checkpoint.vocabulary()
    for name in checkpoint.dtypes:
        checkpoint.tensor(name).to_float32()


if __name__ == "__main__":
    main(seeds, parse)
