"""The "K" storage types: blocks of 256 with a scale (and a minimum) for every 16 or 32 elements.

The scales of the parts are small integers themselves, times one 16-bit scale for the block. Every
``decode`` takes ``[blocks, bytes a block]`` and gives float32 ``[blocks, 256]``.

Source: https://github.com/ggml-org/ggml, src/ggml-common.h, the structs of the same names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from puna.models.block_fields import Bytes, Floats, fields, half

__all__ = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"]


def q2_k(blocks: Bytes) -> Floats:
    """2 bits; 16 parts, each with a 4-bit scale and a 4-bit minimum."""
    scales, codes = blocks[:, :16], fields(blocks[:, 16:80], 2, run=32)
    scale = half(blocks, 80) * (scales & np.uint8(15)).astype(np.float32)
    minimum = half(blocks, 82) * (scales >> 4).astype(np.float32)
    return _scaled(codes, scale, minimum)


def q3_k(blocks: Bytes) -> Floats:
    """3 bits, -4 to 3; 16 parts, each with a 6-bit scale."""
    # The upper bit is stored inverted: where it is not set, 4 is taken off.
    upper = fields(blocks[:, :32], 1, run=32) << np.uint8(2)
    codes = (fields(blocks[:, 32:96], 2, run=32) | upper).view(np.int8) - np.int8(4)
    scales = fields(blocks[:, 96:104], 4, run=8) | (fields(blocks[:, 104:108], 2, run=4) << np.uint8(4))
    return _scaled(codes, half(blocks, 108) * (scales.view(np.int8) - np.int8(32)).astype(np.float32))


def q4_k(blocks: Bytes) -> Floats:
    """4 bits; 8 parts, each with a 6-bit scale and a 6-bit minimum."""
    return _scaled(fields(blocks[:, 16:], 4, run=32), *_scales_and_minimums(blocks))


def q5_k(blocks: Bytes) -> Floats:
    """5 bits; 8 parts, each with a 6-bit scale and a 6-bit minimum."""
    codes = fields(blocks[:, 48:], 4, run=32) | (fields(blocks[:, 16:48], 1, run=32) << np.uint8(4))
    return _scaled(codes, *_scales_and_minimums(blocks))


def q6_k(blocks: Bytes) -> Floats:
    """6 bits, -32 to 31; 16 parts, each with an 8-bit scale."""
    upper = fields(blocks[:, 128:192], 2, run=32) << np.uint8(4)
    codes = (fields(blocks[:, :128], 4, run=64) | upper).view(np.int8) - np.int8(32)
    return _scaled(codes, half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32))


def _scaled(codes: NDArray[np.uint8 | np.int8], scale: Floats, minimum: Floats | None = None) -> Floats:
    """``scale * code - minimum``; codes ``[blocks, 256]``, the others ``[blocks, parts]``."""
    values = codes.reshape(*scale.shape, -1).astype(np.float32)
    values *= scale[:, :, None]
    if minimum is not None:
        values -= minimum[:, :, None]
    return values.reshape(len(codes), -1)


def _scales_and_minimums(blocks: Bytes) -> tuple[Floats, Floats]:
    """Those of the 8 parts of Q4_K and Q5_K, ``[blocks, 8]`` each.

    Twelve bytes hold sixteen 6-bit numbers: scales 0 to 3 and minimums 0 to 3 lie in the low bits of
    bytes 0 to 7; numbers 4 to 7 have their low halves in bytes 8 to 11 (scale below, minimum above)
    and their upper two bits in the upper two of bytes 0 to 7.
    """
    packed = blocks[:, 4:16]
    first, upper = packed[:, :8] & np.uint8(63), packed[:, :8] >> 6 << 4
    low, high = packed[:, 8:] & np.uint8(15), packed[:, 8:] >> 4
    scales = np.concatenate([first[:, :4], low | upper[:, :4]], axis=1)
    minimums = np.concatenate([first[:, 4:], high | upper[:, 4:]], axis=1)
    return half(blocks, 0) * scales.astype(np.float32), half(blocks, 2) * minimums.astype(np.float32)
