"""A random checkpoint as a Hugging Face folder, for transformers."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.random_checkpoint import RandomCheckpoint
from puna.models.packed import write_vocabulary
from puna.models.safetensors import NewTensor, write_safetensors


def write_bf16(checkpoint: RandomCheckpoint, folder: Path) -> None:
    """Write config, vocabulary and ``model.safetensors``."""
    folder.mkdir()
    write_vocabulary(folder, checkpoint.vocabulary())
    config = checkpoint.config.to_hf() | {"torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = [
        NewTensor(name, checkpoint.dtypes[name], shape, lambda name=name: checkpoint.tensor(name).data)
        for name, shape in checkpoint.config.tensor_shapes().items()
    ]
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
