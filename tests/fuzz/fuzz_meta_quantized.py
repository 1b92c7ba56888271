"""Meta's quantized models: settings beside good weights, and everything that is made of both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.fuzz.harness import main

from puna.models.config import ModelConfig
from puna.models.meta_folder import meta_name
from puna.models.open import open_checkpoint
from puna.models.packed import is_float, pack_checkpoint
from puna.models.safetensors import NewTensor
from puna.models.torch_writer import write_torch

SCHEME = {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32}
PARAMS = {
    "dim": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 16, "multiple_of": 32,
    "ffn_dim_multiplier": 0.7, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
    "quantization_args": SCHEME, "lora_args": {"rank": 4, "scale": 2.0},
}  # fmt: skip


def seeds() -> list[bytes]:
    rotated = PARAMS | {"quantization_args": SCHEME | {"spinquant": True}}
    return [json.dumps(raw).encode() for raw in (PARAMS, {"model": PARAMS}, rotated)]


def parse(data: bytes, folder: Path) -> None:
    weights = folder / "consolidated.00.pth"
    if not weights.exists():
        write_torch(weights, _tensors())
    (folder / "params.json").write_bytes(data)
    pack_checkpoint(open_checkpoint(folder))


def _tensors() -> list[NewTensor]:
    config = ModelConfig.from_meta(PARAMS, vocab_size=16, tied_embeddings=False)
    found = []
    for name, shape in config.tensor_shapes().items():
        key = meta_name(name)
        if len(shape) == 1 or is_float(name):
            found.append(NewTensor(key, "BF16", shape, lambda shape=shape: np.full(shape, 0x3F00, np.uint16)))
            continue
        scales = (shape[0], 1 if name in ("model.embed_tokens.weight", "lm_head.weight") else shape[1] // 32)
        found.append(NewTensor(key, "I8", shape, lambda shape=shape: np.full(shape, 3, np.int8)))
        stem = key.removesuffix(".weight")
        found.append(NewTensor(f"{stem}.scales", "F32", scales, lambda s=scales: np.ones(s, np.float32)))
    return found


if __name__ == "__main__":
    main(seeds, parse)
