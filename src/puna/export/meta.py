"""A quantized model in the layout of the official quantized Llama 3.2 models: `write_meta`."""

from __future__ import annotations

from pathlib import Path

from puna.models.checkpoint import Checkpoint
from puna.models.meta_writer import write_meta_quantized
from puna.models.packed import Progress

__all__ = ["write_meta"]


def write_meta(checkpoint: Checkpoint, out: Path, progress: Progress | None = None) -> list[str]:
    """Write ``consolidated.00.pth``, ``params.json`` and the vocabulary, all of it or nothing.

    Args:
        checkpoint: a quantized model; its rotation and adaptors have a place in this layout.
        out: the folder to make; it must not exist yet.
        progress: told of every tensor.

    Returns:
        What was rounded, a sentence each.

    Raises:
        CheckpointError: the source is damaged, is not quantized, or the layout cannot say what it is.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    write_meta_quantized(checkpoint, out, progress=progress)
    if not checkpoint.config.has_output_rotation:
        return []
    return ["the matrix before the head is multiplied into the head, which is rounded to 8 bits a row again"]
