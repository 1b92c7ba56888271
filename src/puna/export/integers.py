"""What the integer formats hold, wherever a checkpoint has it: `integers_of`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.models.checkpoint import Checkpoint
from puna.models.packed import PackedSource

__all__ = ["bf16_bits", "integers_of", "matrices", "same_grid"]

_FORMATS = {"Q4_0": "int4_group32", "Q8_0": "int8_group32"}


def same_grid(checkpoint: Checkpoint, name: str) -> str:
    """How a matrix is stored, GGUF's types that are one of ours under our name: ``int4_group32``."""
    dtype = checkpoint.dtypes[name]
    return _FORMATS.get(dtype, dtype)


def matrices(checkpoint: Checkpoint, *, in_blocks: bool = False) -> list[str]:
    """Names of the matrices, those of the embedding and the head left out with `in_blocks`."""
    shapes = checkpoint.config.tensor_shapes()
    return [
        name for name, shape in shapes.items() if len(shape) == 2 and (".layers." in name or not in_blocks)
    ]


def integers_of(checkpoint: Checkpoint, name: str) -> tuple[NDArray[np.int8], NDArray[Any]] | None:
    """The integers and scales of a matrix, without any loss; None where it is not stored as those.

    Args:
        checkpoint: an open checkpoint.
        name: Hugging Face name of the matrix.

    Returns:
        Integers ``[out, in]`` and scales: float16 ``[out, ceil(in / 32)]``, or float32 ``[out, 1]`` for
        ``int8_channel``.

    Raises:
        CheckpointError: the tensor is damaged.
    """
    if isinstance(checkpoint, PackedSource) and checkpoint.dtypes[name].startswith("int"):
        return checkpoint.packed(name).to_integers()
    return checkpoint.tensor(name).to_groups()


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, to the nearest, ties to even: its bits, in the same shape."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    # A NaN whose low half overflows would become infinite.
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)
