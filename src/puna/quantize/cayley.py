"""Gradient descent over orthogonal matrices: `skew_direction`, `cayley_step`, `nearest_rotation`.

Source: Li, Li and Todorovic 2020, https://arxiv.org/abs/2002.01113, algorithm 1 without momentum, for square
matrices. There the inverse of the Cayley transform is approached by a few fixed-point steps; here it is
solved for, so that a matrix stays orthogonal to float64's accuracy, for less than a forward pass costs.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cayley_step", "nearest_rotation", "skew_direction"]


def skew_direction(rotation: Tensor, gradient: Tensor) -> Tensor:
    """The part of a gradient that turns, and does not stretch.

    Args:
        rotation: orthogonal R, ``[..., n, n]``.
        gradient: of the loss by R, the same shape.

    Returns:
        ``W = (R^T G - G^T R) / 2``, skew: R goes downhill as ``R - a R W``.
    """
    product = rotation.mT @ gradient
    return (product - product.mT) / 2


def cayley_step(rotation: Tensor, direction: Tensor, rate: float) -> Tensor:
    """Turn orthogonal matrices along a direction.

    Args:
        rotation: R, ``[..., n, n]``.
        direction: W of `skew_direction`, the same shape.
        rate: how far at most; never further than the reciprocal of the largest sum of magnitudes in a column
            of W.

    Returns:
        ``R (I - a/2 W) (I + a/2 W)^-1``, orthogonal as R is.
    """
    size = direction.abs().sum(-2, keepdim=True).amax(-1, keepdim=True)
    half = direction * (1 / (size + 1e-8)).clamp(max=rate) / 2
    one = torch.eye(rotation.shape[-1], dtype=rotation.dtype, device=rotation.device)
    turned: Tensor = torch.linalg.solve(one + half, rotation @ (one - half), left=False)
    return turned


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, by the polar decomposition: ``[..., n, n]``."""
    left, _, right = torch.linalg.svd(matrix)
    nearest: Tensor = left @ right
    return nearest
