"""A model in Hugging Face's layout, for transformers and all that reads it: `write_huggingface`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.export.folded import folded
from puna.export.integers import bf16_bits
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig, RopeScaling
from puna.models.new_folder import new_folder
from puna.models.packed import Progress, write_json, write_vocabulary
from puna.models.safetensors import NewTensor, write_safetensors

__all__ = ["as_dtype", "hf_config", "write_huggingface"]

_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def write_huggingface(
    checkpoint: Checkpoint, out: Path, progress: Progress | None = None, *, dtype: str = "BF16"
) -> list[str]:
    """Write a folder that transformers loads, all of it or nothing.

    Args:
        checkpoint: the source; integers become the numbers they stand for, rotations and adaptors a part
            of the weights, see `folded`.
        out: the folder to make; it must not exist yet.
        progress: told of every tensor.
        dtype: of the numbers in the file: ``BF16``, ``F16`` or ``F32``.

    Returns:
        What was rounded, a sentence each.

    Raises:
        CheckpointError: the source is damaged, or transformers has no such model.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    additions = checkpoint.config.additions
    checkpoint = folded(checkpoint)
    shapes = checkpoint.config.tensor_shapes()
    config = hf_config(checkpoint, dtype)
    vocabulary = checkpoint.vocabulary()
    done, n_rounded = 0, 0

    def produce(name: str) -> NDArray[np.generic]:
        nonlocal done, n_rounded
        done += 1
        if progress is not None:
            progress(done, len(shapes))
        values = checkpoint.tensor(name).to_float32()
        stored, is_exact = as_dtype(name, values, dtype)
        n_rounded += not is_exact
        return stored

    tensors = [
        NewTensor(name, dtype, shape, lambda name=name: produce(name))  # type: ignore[misc]
        for name, shape in shapes.items()
    ]
    with new_folder(out, sum(tensor.n_bytes for tensor in tensors)) as folder:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        write_json(folder / "config.json", config)
        write_vocabulary(folder, vocabulary)
    return [
        *(f"{addition}: multiplied into the weights" for addition in additions),
        *(
            [f"numbers of {n_rounded} of {len(shapes)} tensors are rounded to {_NAMES[dtype]}"]
            if n_rounded
            else []
        ),
    ]


def as_dtype(name: str, values: NDArray[np.float32], dtype: str) -> tuple[NDArray[np.generic], bool]:
    """Round float32 to what a safetensors file calls ``BF16`` (as its bits), ``F16`` or ``F32``.

    Returns:
        The numbers, and whether they are still the same.

    Raises:
        CheckpointError: one of the numbers is not finite, or too large for the type.
    """
    stored: NDArray[np.generic]
    if dtype == "BF16":
        stored = bf16_bits(values)
        again = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):
            stored = again = values.astype(np.float16 if dtype == "F16" else np.float32, copy=False)
    if not np.isfinite(again).all():
        raise CheckpointError(
            f"{name!r:.100} has a number that is not finite, or too large for {_NAMES[dtype]}, which "
            "would be written as infinity"
        )
    return stored, np.array_equal(again, values)


def hf_config(checkpoint: Checkpoint, dtype: str) -> dict[str, object]:
    """The ``config.json`` of a model, one that transformers knows.

    Args:
        checkpoint: the model.
        dtype: of the numbers, ``BF16``, ``F16`` or ``F32``.

    Raises:
        CheckpointError: the model has no such config.
    """
    model = _with_named_scaling(checkpoint.config)
    if model.rope_scaling is not None and model.rope_scaling.kind == "factors":
        raise CheckpointError(
            f"{checkpoint.path}: transformers has no rotary scaling by factors, which this model has from a "
            "GGUF file; export the checkpoint that the file was made from, or write GGUF"
        )
    vocabulary = checkpoint.vocabulary()
    ids = {"bos_token_id": vocabulary.bos_id, "eos_token_id": list(vocabulary.eos_ids) or None}
    return {**model.to_hf(), **ids, "dtype": _NAMES[dtype]}


def _with_named_scaling(config: ModelConfig) -> ModelConfig:
    """The config, factors of a GGUF file that are Llama 3.1's or 3.2's replaced by what they came from."""
    if config.rope_scaling is None or config.rope_scaling.kind != "factors":
        return config
    plain = replace(config, rope_scaling=None).rope_frequencies()
    for factor in (8.0, 32.0):
        named = replace(config, rope_scaling=RopeScaling(kind="llama3", factor=factor))
        factors = np.array(plain) / np.array(named.rope_frequencies())
        if np.allclose(factors, config.rope_scaling.factors, rtol=1e-6):
            return named
    return config
