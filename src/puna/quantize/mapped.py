"""Tensors over arrays that are mapped from a file: `mapped`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["mapped"]


def mapped(array: NDArray[Any]) -> Tensor:
    """An array as a tensor that is read and never written, without a copy.

    What is mapped from a file takes no memory that the system could not have back.

    Args:
        array: read-only as a rule; where it does not lie on whole elements it is copied.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.require(array, requirements="A"))
