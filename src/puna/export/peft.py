"""A model with adaptors as PEFT has it, base and adaptors apart: `write_peft`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.export.folded import folded, rotated
from puna.export.huggingface import as_dtype, write_huggingface
from puna.models.checkpoint import Checkpoint
from puna.models.new_folder import new_folder
from puna.models.packed import Progress, write_json
from puna.models.safetensors import NewTensor, write_safetensors

__all__ = ["write_peft"]

_DTYPE = "BF16"


def write_peft(checkpoint: Checkpoint, out: Path, progress: Progress | None = None) -> list[str]:
    """Write ``base``, a folder for transformers, and ``adapter``, one for PEFT, all of it or nothing.

    Args:
        checkpoint: a model with adaptors; its integers become the numbers they stand for, its rotations a
            part of the weights.
        out: the folder to make; it must not exist yet.
        progress: told of every tensor of the base.

    Returns:
        What was rounded, a sentence each.

    Raises:
        CheckpointError: the source is damaged, or has no adaptors.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    config = checkpoint.config
    if not config.lora_rank:
        raise CheckpointError(
            f"{checkpoint.path}: the model has no adaptors, which is all that PEFT would get; write it with "
            "`puna export --to huggingface`, or make some: `puna quantize --method qat-lora`"
        )
    names = [name for name in config.tensor_shapes() if ".lora_" in name]
    values = {name: as_dtype(name, _adaptor(checkpoint, name), _DTYPE) for name in names}
    tensors = [
        NewTensor(f"base_model.model.{name}", _DTYPE, bits.shape, lambda bits=bits: bits)  # type: ignore[misc]
        for name, (bits, _) in values.items()
    ]
    base = folded(checkpoint, with_adaptors=False)
    # A part of its size only: writing the base looks for room for the rest.
    with new_folder(out, sum(tensor.n_bytes for tensor in tensors)) as folder:
        notes = write_huggingface(base, folder / "base", progress, dtype=_DTYPE)
        adapter = folder / "adapter"
        adapter.mkdir()
        write_safetensors(adapter / "adapter_model.safetensors", tensors, {"format": "pt"})
        write_json(adapter / "adapter_config.json", _config(checkpoint, names))
    n_rounded = sum(not is_exact for _, is_exact in values.values())
    if n_rounded:
        notes.append(f"numbers of {n_rounded} of {len(names)} tensors of adaptors are rounded to bfloat16")
    return notes


def _adaptor(checkpoint: Checkpoint, name: str) -> NDArray[np.float32]:
    """One of an adaptor's two matrices, for inputs that nothing rotates."""
    values, config = checkpoint.tensor(name).to_float32(), checkpoint.config
    if config.has_down_rotation and name.endswith("mlp.down_proj.lora_A.weight"):
        return rotated(values, config.rotation_block)
    return values


def _config(checkpoint: Checkpoint, names: list[str]) -> dict[str, object]:
    rank = checkpoint.config.lora_rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": checkpoint.config.lora_scale * rank,  # PEFT multiplies by alpha over rank
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({name.split(".")[-3] for name in names}),
    }
