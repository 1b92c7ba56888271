"""How tensors are stored, type by type: bytes a block, and the way back to float32.

To add a storage type write one function that decodes its blocks and one row of `_TYPES`. The names
are GGUF's; a file of another format uses those that it shares (``F32``, ``F16``, ``BF16``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError

__all__ = ["bytes_of", "dequantize", "groups_of_32", "known_dtypes"]

_Bytes = NDArray[np.uint8]
_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Type:
    """One way to store numbers: every ``elements`` numbers of a row take ``n_bytes`` bytes."""

    elements: int
    n_bytes: int
    decode: Callable[[_Bytes], _Floats]  # [blocks, n_bytes] -> [blocks, elements]


def _f32(blocks: _Bytes) -> _Floats:
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: _Bytes) -> _Floats:
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: _Bytes) -> _Floats:
    # A bfloat16 is the upper half of a float32.
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: _Bytes) -> _Floats:
    return _scale(blocks) * _q8_0_integers(blocks).astype(np.float32)


def _q4_0(blocks: _Bytes) -> _Floats:
    return _scale(blocks) * _q4_0_integers(blocks).astype(np.float32)


def _q4_1(blocks: _Bytes) -> _Floats:
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    return _scale(blocks) * _nibbles(blocks[:, 4:]).astype(np.float32) + minimum


def _scale(blocks: _Bytes) -> _Floats:
    return blocks[:, :2].copy().view("<f2").astype(np.float32)


def _nibbles(packed: _Bytes) -> _Bytes:
    # The low halves of 16 bytes are elements 0 to 15 of a block, the high halves 16 to 31.
    return np.concatenate([packed & 0x0F, packed >> 4], axis=1)


def _q8_0_integers(blocks: _Bytes) -> NDArray[np.int8]:
    return blocks[:, 2:].view(np.int8)


def _q4_0_integers(blocks: _Bytes) -> NDArray[np.int8]:
    return _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)


_TYPES = {
    "F32": _Type(1, 4, _f32),
    "F16": _Type(1, 2, _f16),
    "BF16": _Type(1, 2, _bf16),
    "Q4_0": _Type(32, 18, _q4_0),
    "Q4_1": _Type(32, 20, _q4_1),
    "Q8_0": _Type(32, 34, _q8_0),
}
# Types whose blocks are 32 integers and one 16-bit scale, and nothing else.
_INTEGERS = {"Q4_0": _q4_0_integers, "Q8_0": _q8_0_integers}


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
    blocks = _blocks(dtype, data, shape)
    # A damaged file's infinite scale times zero is NaN, and needs no warning on top.
    with np.errstate(invalid="ignore", over="ignore"):
        return _TYPES[dtype].decode(blocks).reshape(shape)


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


def _blocks(dtype: str, data: NDArray[np.uint8], shape: tuple[int, ...]) -> _Bytes:
    needed = bytes_of(dtype, shape)
    if data.nbytes != needed:
        raise CheckpointError(f"a {dtype} tensor of shape {shape} needs {needed} bytes, got {data.nbytes}")
    return np.ascontiguousarray(data).reshape(-1, _TYPES[dtype].n_bytes)
