"""The index of sharded weights, beside good shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.fuzz.fuzz_config import CONFIG
from tests.fuzz.harness import main

from puna.models.huggingface import HuggingFaceCheckpoint
from puna.models.safetensors import NewTensor, write_safetensors

SHARDS = ("a.safetensors", "b.safetensors")


def seeds() -> list[bytes]:
    names = list(CONFIG.tensor_shapes())
    weight_map = {name: SHARDS[i % 2] for i, name in enumerate(names)}
    return [json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()]


def parse(data: bytes, folder: Path) -> None:
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps(CONFIG.to_hf()))
        for i, shard in enumerate(SHARDS):
            tensors = [
                NewTensor(name, "F32", shape, lambda shape=shape: np.zeros(shape, np.float32))
                for name, shape in list(CONFIG.tensor_shapes().items())[i::2]
            ]
            write_safetensors(folder / shard, tensors, {})
    (folder / "model.safetensors.index.json").write_bytes(data)
    HuggingFaceCheckpoint(folder)


if __name__ == "__main__":
    main(seeds, parse)
