"""How tensors are stored, type by type: bytes a block, and the way back to float32.

To add a storage type write one function that decodes its blocks (in `blocks_32.py`, `blocks_256.py` or
a new file) and one row of `_TYPES`. The names are GGUF's; a file of another format uses those that it
shares (``F32``, ``F16``, ``BF16``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models import blocks_32, blocks_256
from puna.models.block_fields import Bytes, Floats

__all__ = ["bytes_of", "dequantize", "groups_of_32", "known_dtypes"]

# Elements that are decoded at a time, so that what is made on the way stays in the processor's cache.
_CHUNK = 131_072


@dataclass(frozen=True, slots=True)
class _Type:
    """One way to store numbers: every ``elements`` numbers of a row take ``n_bytes`` bytes."""

    elements: int
    n_bytes: int
    decode: Callable[[Bytes], Floats]  # [blocks, n_bytes] -> [blocks, elements]


def _f32(blocks: Bytes) -> Floats:
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    # A bfloat16 is the upper half of a float32.
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


_TYPES = {
    "F32": _Type(1, 4, _f32),
    "F16": _Type(1, 2, _f16),
    "BF16": _Type(1, 2, _bf16),
    "Q4_0": _Type(32, 18, blocks_32.q4_0),
    "Q4_1": _Type(32, 20, blocks_32.q4_1),
    "Q5_0": _Type(32, 22, blocks_32.q5_0),
    "Q5_1": _Type(32, 24, blocks_32.q5_1),
    "Q8_0": _Type(32, 34, blocks_32.q8_0),
    "IQ4_NL": _Type(32, 18, blocks_32.iq4_nl),
    "Q2_K": _Type(256, 84, blocks_256.q2_k),
    "Q3_K": _Type(256, 110, blocks_256.q3_k),
    "Q4_K": _Type(256, 144, blocks_256.q4_k),
    "Q5_K": _Type(256, 176, blocks_256.q5_k),
    "Q6_K": _Type(256, 210, blocks_256.q6_k),
}
# Types whose blocks are 32 integers and one 16-bit scale, and nothing else.
_INTEGERS = {"Q4_0": blocks_32.q4_0_integers, "Q8_0": blocks_32.q8_0_integers}


def known_dtypes() -> tuple[str, ...]:
    """Names of the storage types that can be read."""
    return tuple(_TYPES)


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes.

    Args:
        dtype: name of the storage type.
        shape: elements; blocks run along the last axis.

    Raises:
        CheckpointError: the type is not known, or a row is not a whole number of blocks.
    """
    kind = _TYPES.get(dtype)
    if kind is None:
        raise CheckpointError(f"storage type {dtype} is not read yet; known: {', '.join(_TYPES)}")
    if shape[-1] % kind.elements:
        raise CheckpointError(
            f"{dtype} needs rows of a multiple of {kind.elements} elements, got {shape[-1]}"
        )
    return math.prod(shape) // kind.elements * kind.n_bytes


def dequantize(dtype: str, data: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Turn stored bytes into the numbers they stand for.

    Args:
        dtype: name of the storage type.
        data: the bytes, in any shape.
        shape: elements of the result.

    Returns:
        ``shape``, float32, C order, freshly allocated; computed in float32, as the format defines it.

    Raises:
        CheckpointError: the type is not known, or ``data`` is not as long as ``shape`` calls for.
    """
    blocks, kind = _blocks(dtype, data, shape), _TYPES[dtype]
    values = np.empty((len(blocks), kind.elements), np.float32)
    step = _CHUNK // kind.elements
    # A damaged file's infinite scale times zero is NaN, and needs no warning on top.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(blocks), step):
            values[start : start + step] = kind.decode(blocks[start : start + step])
    return values.reshape(shape)


def groups_of_32(
    dtype: str, data: NDArray[np.uint8], shape: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.float16]] | None:
    """Split a tensor into integers and scales where its type is nothing but those.

    Args:
        dtype: name of the storage type.
        data: the bytes, in any shape.
        shape: elements, ``(out, in)``.

    Returns:
        For ``Q4_0`` and ``Q8_0``: int8 of ``shape`` and float16 ``(out, in / 32)``, with
        ``value = integer * scale`` exactly; None for every other type.

    Raises:
        CheckpointError: the type is not known, or ``data`` is not as long as ``shape`` calls for.
    """
    blocks = _blocks(dtype, data, shape)
    if dtype not in _INTEGERS:
        return None
    scales = blocks[:, :2].copy().view("<f2").astype(np.float16, copy=False)
    integers = np.ascontiguousarray(_INTEGERS[dtype](blocks))
    return integers.reshape(shape), scales.reshape(*shape[:-1], shape[-1] // 32)


def _blocks(dtype: str, data: NDArray[np.uint8], shape: tuple[int, ...]) -> Bytes:
    needed = bytes_of(dtype, shape)
    if data.nbytes != needed:
        raise CheckpointError(f"a {dtype} tensor of shape {shape} needs {needed} bytes, got {data.nbytes}")
    return np.ascontiguousarray(data).reshape(-1, _TYPES[dtype].n_bytes)
