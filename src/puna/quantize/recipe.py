"""What is asked of a quantization: `Recipe`."""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import ConfigError, nearest
from puna.nn.rounding import DEFAULT_RULE, RULES

__all__ = ["METHODS", "Recipe", "default_rule"]

METHODS = ("ptq", "gptq", "spinquant", "distill")
"""What each adds to the one before it.

=========  ==========================================================================
ptq        rounding to nearest
gptq       makes up for errors, as far as the inputs from calibration text allow
spinquant  the model is rotated first
distill    scales and norms learn to predict as the original does
=========  ==========================================================================
"""


def default_rule(method: str) -> str:
    """The rule for scales of one of `METHODS`; ptq's is the best measured, see docs/quantization.md."""
    return DEFAULT_RULE if method == "ptq" else "search"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to quantize.

    Attributes:
        method: one of `METHODS`.
        rule: how a group's scale is chosen, see `puna.nn.rounding.RULES`.
        sequences: pieces of calibration text; from here on for all methods but ``ptq``.
        length: tokens of each.
        damping: added to the diagonal of the Hessian, as a share of its mean; over 0.
        act_order: go through the columns by the size of their inputs; scales are then chosen before.
        rounds_tokens: calibrate with activations rounded to 8 bits, as the engine rounds them.
        follows_original: round so that outputs are near the original model's, and not near what the same
            matrices would give before they are rounded.
        rotation_steps: of learning rotations; 0 leaves them random.
        distill_steps: for ``distill``, of learning scales and norms.
        seed: of the random rotations, and of the order in which steps of learning take the text.
    """

    method: str = "ptq"
    rule: str = DEFAULT_RULE
    sequences: int = 128
    length: int = 2048
    damping: float = 0.01
    act_order: bool = False
    rounds_tokens: bool = True
    follows_original: bool = False
    rotation_steps: int = 100
    distill_steps: int = 200
    seed: int = 0

    @property
    def rotates(self) -> bool:
        """Whether the model is rotated first."""
        return self.method in ("spinquant", "distill")

    @property
    def distills(self) -> bool:
        """Whether scales and norms are learned in the end."""
        return self.method == "distill" and self.distill_steps > 0

    def __post_init__(self) -> None:
        """Validate every field; ConfigError names the first that is wrong."""
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r} is unknown; {nearest(self.method, METHODS)}")
        if self.rule not in RULES:
            raise ConfigError(f"scale rule {self.rule!r} is unknown; {nearest(self.rule, RULES)}")
        for name, low in (
            ("sequences", 1),
            ("length", 2),
            ("rotation_steps", 0),
            ("distill_steps", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"`{name}` must be at least {low}, got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"`seed` must be from 0 to 2^63 - 1, got {self.seed}")
        if not 0 < self.damping <= 1:
            raise ConfigError(f"`damping` must be above 0 and at most 1, got {self.damping}")
