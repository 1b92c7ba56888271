"""Meta's params.json, beside good weights."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.harness import main
from tests.unit.models.pickles import model, storage, tensor, write

from puna.models.meta import MetaCheckpoint

PARAMS = {
    "dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 16, "multiple_of": 8,
    "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
}  # fmt: skip
SHAPES = {
    "tok_embeddings": (16, 8), "norm": (8,), "output": (16, 8), "layers.0.attention_norm": (8,),
    "layers.0.attention.wq": (8, 8), "layers.0.attention.wk": (4, 8), "layers.0.attention.wv": (4, 8),
    "layers.0.attention.wo": (8, 8), "layers.0.ffn_norm": (8,), "layers.0.feed_forward.w1": (32, 8),
    "layers.0.feed_forward.w3": (32, 8), "layers.0.feed_forward.w2": (8, 32),
}  # fmt: skip


def seeds() -> list[bytes]:
    return [json.dumps(raw).encode() for raw in (PARAMS, {"model": PARAMS}, PARAMS | {"vocab_size": -1})]


def parse(data: bytes, folder: Path) -> None:
    weights = folder / "consolidated.00.pth"
    if not weights.exists():
        stored = storage(n_elements=256)
        tensors = {
            f"{name}.weight": tensor(shape, (*shape[1:], 1), int("output" in name), stored)
            for name, shape in SHAPES.items()
        }
        write(weights, model(**tensors), {"0": b"".join(bytes([i, 0, 0, 63]) for i in range(256))})
    (folder / "params.json").write_bytes(data)
    checkpoint = MetaCheckpoint(folder)
    for name in checkpoint.dtypes:
        checkpoint.tensor(name).to_float32()


if __name__ == "__main__":
    main(seeds, parse)
