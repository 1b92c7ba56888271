"""What is asked of a quantization: `Recipe`."""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import ConfigError, nearest
from puna.nn.rounding import DEFAULT_RULE, RULES

__all__ = ["METHODS", "Recipe", "default_rule"]

METHODS = ("ptq", "gptq")
"""Rounding to nearest, and rounding that makes up for its errors on calibration text."""


def default_rule(method: str) -> str:
    """The rule for scales: the best measured for ptq, the one tried for gptq; see docs/quantization.md."""
    return "search" if method == "gptq" else DEFAULT_RULE


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to quantize.

    Attributes:
        method: one of `METHODS`.
        rule: how a group's scale is chosen, see `puna.nn.rounding.RULES`.
        sequences: pieces of calibration text; from here on for ``gptq`` only.
        length: tokens of each.
        damping: added to the diagonal of the Hessian, as a share of its mean; over 0.
        act_order: go through the columns by the size of their inputs; scales are then chosen before.
        rounds_tokens: calibrate with activations rounded to 8 bits, as the engine rounds them.
    """

    method: str = "ptq"
    rule: str = DEFAULT_RULE
    sequences: int = 128
    length: int = 2048
    damping: float = 0.01
    act_order: bool = False
    rounds_tokens: bool = True

    def __post_init__(self) -> None:
        """Validate every field; ConfigError names the first that is wrong."""
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r} is unknown; {nearest(self.method, METHODS)}")
        if self.rule not in RULES:
            raise ConfigError(f"scale rule {self.rule!r} is unknown; {nearest(self.rule, RULES)}")
        for name, low in (("sequences", 1), ("length", 2)):
            if getattr(self, name) < low:
                raise ConfigError(f"`{name}` must be at least {low}, got {getattr(self, name)}")
        if not 0 < self.damping <= 1:
            raise ConfigError(f"`damping` must be above 0 and at most 1, got {self.damping}")
