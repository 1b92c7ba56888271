"""What is asked of a training run: `TrainSettings`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from puna.errors import ConfigError

__all__ = ["TrainSettings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How to train.

    Attributes:
        steps: optimizer steps in all.
        batch: rows a forward pass has.
        accumulate: forward passes whose gradients make one step; ``batch * accumulate`` rows count as one
            batch, whatever the share of each.
        learning_rate: the highest, reached after `warmup`.
        warmup: steps over which the rate rises from zero in a line.
        final_rate: where the cosine ends, as a share of `learning_rate`.
        weight_decay: AdamW's, of matrices; vectors have none.
        betas: AdamW's two memories.
        clip: largest norm of a gradient over all parameters; a longer one is shortened to it.
        seed: of the order of rows.
        evaluate_every: steps between two looks at the rows held out; 0 for one at the end alone.
        save_every_s: seconds between two savings of the state; a run that breaks off loses no more.
    """

    steps: int
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 2e-5
    warmup: int = 0
    final_rate: float = 0.1
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    evaluate_every: int = 0
    save_every_s: float = 300.0

    def __post_init__(self) -> None:
        """Validate every field; ConfigError names the first that is wrong."""
        for name, low in (
            ("steps", 1),
            ("batch", 1),
            ("accumulate", 1),
            ("warmup", 0),
            ("evaluate_every", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"`{name}` must be at least {low}, got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 43:  # the number of an epoch stands behind it, in 63 bits together
            raise ConfigError(f"`seed` must be from 0 to 2^43 - 1, got {self.seed}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"`{name}` must be above 0 and finite, got {getattr(self, name)}")
        for name in ("final_rate", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be from 0 to 1, got {getattr(self, name)}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0: a line up, then half a cosine down."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        share = self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * part)) / 2
        return self.learning_rate * share
