"""How many tokens of a text a step computes: the fewer the more come before them, so that no step lasts long.

A token is compared with all before it, which soon takes longer than all matrices do. Others wait for a step,
and so does whoever leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from puna.models.config import ModelConfig

__all__ = ["Pace", "pace_of"]

_ROWS = 16  # tokens that attention and AMX's tiles take at once
_LEAST = 64  # tokens of a slice, or its matrices would take much longer a token
_SLOWER = 4  # a product of attention, in floats, than one of a matrix, in bytes: roughly, on all CPUs we have


@dataclass(frozen=True, slots=True)
class Pace:
    """What tokens cost at a place in a text.

    Attributes:
        double_at: position at which a token takes twice as long as the first one.
    """

    double_at: float

    def cost(self, n_tokens: int, position: int) -> float:
        """What tokens from a position on take, in first tokens of a text."""
        return n_tokens * (1 + position / self.double_at)

    def tokens(self, cost: float, position: int) -> int:
        """Tokens from a position on that take so long, in whole tiles where there is one."""
        n = int(cost / (1 + position / self.double_at))
        return n - n % _ROWS if position and n > _ROWS else n

    def next(self, n_tokens: int, position: int) -> int:
        """As many as take as long as the first `n_tokens` of a text, but enough for a matrix product."""
        return max(self.tokens(n_tokens, position), min(n_tokens, _LEAST))


def pace_of(config: ModelConfig) -> Pace:
    """The pace of a model on our kernels."""
    matrices = (math.prod(shape) for name, shape in config.tensor_shapes().items() if ".layers." in name)
    # Keys and values of a position are multiplied once by each head.
    attention = 2 * config.n_layers * config.n_heads * config.head_dim
    return Pace(sum(matrices) / (_SLOWER * attention))
