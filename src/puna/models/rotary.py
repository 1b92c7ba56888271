"""The order of the rows of q and k: `half_split_rows` and its inverse `interleaved_rows`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["half_split_rows", "interleaved_rows"]


def half_split_rows(data: NDArray[np.uint8], n_heads: int) -> NDArray[np.uint8]:
    """Bring rows of q or k from Meta's and GGUF's order to Hugging Face's, the one of this package.

    A rotation turns a pair of rows. Meta keeps the two of a pair side by side; Hugging Face keeps all
    first ones of a head, then all second ones.

    Args:
        data: ``[heads * head_dim, bytes a row]``.
        n_heads: heads in it.

    Returns:
        A read-only copy of the same shape.

    Source: llama.cpp, ``convert_hf_to_gguf.py``, ``LlamaModel.permute``, of which this is the inverse.
    """
    n_rows, n_bytes = data.shape
    pairs = data.reshape(n_heads, n_rows // n_heads // 2, 2, n_bytes)
    rows = pairs.swapaxes(1, 2).reshape(n_rows, n_bytes)
    rows.flags.writeable = False
    return rows


def interleaved_rows(data: NDArray[np.uint8], n_heads: int) -> NDArray[np.uint8]:
    """Bring rows of q or k from Hugging Face's order to Meta's: the inverse of `half_split_rows`.

    Args:
        data: ``[heads * head_dim, bytes a row]``.
        n_heads: heads in it.

    Returns:
        A copy of the same shape.
    """
    n_rows, n_bytes = data.shape
    halves = data.reshape(n_heads, 2, n_rows // n_heads // 2, n_bytes)
    return halves.swapaxes(1, 2).reshape(n_rows, n_bytes)
