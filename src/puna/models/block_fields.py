"""What `blocks_32.py` and `blocks_256.py` are made of: half floats and small integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bytes", "Floats", "fields", "half"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def half(blocks: Bytes, start: int) -> Floats:
    """The 16-bit float at a byte of every block: ``[blocks, bytes]`` to ``[blocks, 1]``."""
    return blocks[:, start : start + 2].copy().view("<f2").astype(np.float32)


def fields(packed: Bytes, n_bits: int, run: int) -> Bytes:
    """Split bytes into small integers, lowest bits first.

    Args:
        packed: ``[blocks, bytes]``.
        n_bits: width of one integer: 1, 2 or 4.
        run: this many bytes give all their lowest fields before their next ones.

    Returns:
        ``[blocks, bytes * 8 / n_bits]``.
    """
    shifts = np.arange(0, 8, n_bits, dtype=np.uint8).reshape(1, 1, -1, 1)
    runs = packed.reshape(len(packed), -1, 1, run)
    parts = runs >> shifts
    parts &= np.uint8((1 << n_bits) - 1)
    return parts.reshape(len(packed), -1)
