"""Hadamard matrices of the sizes that Llamas have: `hadamard_matrix`.

A Hadamard matrix has entries 1 and -1 and orthogonal rows. One of order ``2^k m`` is made from one of order
m.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hadamard_matrix"]


def hadamard_matrix(n: int) -> Tensor | None:
    """A Hadamard matrix over the root of its order, which makes it orthogonal.

    Args:
        n: the order.

    Returns:
        ``[n, n]`` float64: where n is a power of two Sylvester's, which is symmetric; else Sylvester's times
        the smallest that one of Paley's two constructions over a prime gives. None where they give none.
    """
    power = n & -n
    while power:
        small = _paley(n // power) if n != power else torch.ones(1, 1, dtype=torch.float64)
        if small is not None:
            large: Tensor = torch.kron(_sylvester(power), small) / n**0.5
            return large
        power //= 2
    return None


def _sylvester(n: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.kron(step, matrix)
    return matrix


def _paley(n: int) -> Tensor | None:
    """A Hadamard matrix of order n, not normalised, by Paley's first or second construction.

    Source: Paley 1933, https://doi.org/10.1002/sapm1933121311.
    """
    if n % 4:
        return None
    one = torch.eye(n, dtype=torch.float64)
    if _is_prime(n - 1):
        return one + _conference(n - 1)
    half = n // 2
    if half % 4 == 2 and _is_prime(half - 1):
        signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        turned = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(_conference(half - 1), signs) + torch.kron(one[:half, :half], turned)
    return None


def _conference(q: int) -> Tensor:
    """``[q + 1, q + 1]`` with a diagonal of 0, else 1 and -1, rows orthogonal; skew where q is 3 modulo 4."""
    squares = {i * i % q for i in range(1, q)}
    character = torch.tensor(
        [0.0] + [1.0 if i in squares else -1.0 for i in range(1, q)], dtype=torch.float64
    )
    places = torch.arange(q)
    matrix = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    matrix[1:, 1:] = character[(places[:, None] - places) % q]
    matrix[0, 1:] = 1
    matrix[1:, 0] = 1 if q % 4 == 1 else -1
    return matrix


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % i for i in range(2, int(n**0.5) + 1))
