"""Storage types in blocks of 32: one scale, perhaps a minimum, and 4, 5 or 8 bits an element.

Every ``decode`` takes ``[blocks, bytes a block]`` and gives float32 ``[blocks, 32]``.

Source: https://github.com/ggml-org/ggml, src/ggml-common.h, the structs of the same names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from puna.models.block_fields import Bytes, Floats, fields, half

__all__ = [
    "from_integers",
    "iq4_nl",
    "q4_0",
    "q4_0_integers",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q8_0_integers",
]

# What the 16 codes of IQ4_NL stand for: finer steps near zero, where most weights are.
_IQ4_NL_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)


def q8_0(blocks: Bytes) -> Floats:
    """``scale * integer``, 8 bits."""
    return half(blocks, 0) * q8_0_integers(blocks).astype(np.float32)


def q4_0(blocks: Bytes) -> Floats:
    """``scale * (code - 8)``, 4 bits."""
    return half(blocks, 0) * q4_0_integers(blocks).astype(np.float32)


def q4_1(blocks: Bytes) -> Floats:
    """``scale * code + minimum``, 4 bits."""
    return half(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + half(blocks, 2)


def q5_0(blocks: Bytes) -> Floats:
    """``scale * (code - 16)``, 5 bits."""
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return half(blocks, 0) * (codes.view(np.int8) - np.int8(16)).astype(np.float32)


def q5_1(blocks: Bytes) -> Floats:
    """``scale * code + minimum``, 5 bits."""
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return half(blocks, 0) * codes.astype(np.float32) + half(blocks, 2)


def iq4_nl(blocks: Bytes) -> Floats:
    """``scale * value``, 4 bits that choose one of 16 values."""
    return half(blocks, 0) * _IQ4_NL_VALUES[_nibbles(blocks[:, 2:])]


def q8_0_integers(blocks: Bytes) -> NDArray[np.int8]:
    """The integers of Q8_0, ``[blocks, 32]``, a view."""
    return blocks[:, 2:].view(np.int8)


def q4_0_integers(blocks: Bytes) -> NDArray[np.int8]:
    """The integers of Q4_0, -8 to 7, ``[blocks, 32]``."""
    return _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)


def from_integers(integers: NDArray[np.int8], scales: NDArray[np.float16], bits: int) -> Bytes:
    """Blocks of Q4_0 or Q8_0 from integers and scales: the inverse of `q4_0_integers` and `q8_0_integers`.

    Args:
        integers: ``[rows, columns]``, columns a multiple of 32; from -8 to 7 for 4 bits.
        scales: ``[rows, columns / 32]``.
        bits: 4 or 8.

    Returns:
        ``[rows, bytes a row]``.
    """
    rows = len(integers)
    values = integers.reshape(-1, 32)
    if bits == 4:
        codes = (values + np.int8(8)).view(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << np.uint8(4)
    else:
        packed = values.view(np.uint8)
    heads = np.ascontiguousarray(scales, "<f2").view(np.uint8).reshape(-1, 2)
    return np.concatenate([heads, packed], axis=1).reshape(rows, -1)


def _nibbles(packed: Bytes) -> Bytes:
    # The low halves of 16 bytes are elements 0 to 15 of a block, the high halves 16 to 31.
    return fields(packed, 4, run=16)


def _fifth_bits(packed: Bytes) -> Bytes:
    # Four bytes, a bit for each element in order; it stands above the other four.
    return fields(packed, 1, run=1) << np.uint8(4)
