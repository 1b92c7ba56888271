"""What is asked of quantization by training: `QatRecipe`, and the memory that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from puna.errors import ConfigError, nearest
from puna.models.config import ModelConfig
from puna.nn.rounding import DEFAULT_RULE, RULES
from puna.train.settings import TrainSettings

__all__ = ["LOSSES", "METHODS", "QatRecipe", "memory_estimate"]

METHODS = ("qat", "qat-lora")
"""Training all weights, and after that adaptors beside them."""
LOSSES = ("distill", "text")
"""Nearness to the float model's predictions, and surprise at the text itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QatRecipe:
    """How to quantize by training.

    Attributes:
        method: one of `METHODS`.
        rule: how a group's scale is chosen, see `puna.nn.rounding.RULES`, in every step anew.
        loss: one of `LOSSES`.
        length: tokens of a row.
        held_out: rows that are not learned from, to look at from time to time.
        fake_quant_after: steps in floats, before rounding begins.
        rank: of the adaptors.
        scale: what adaptors add is multiplied by.
        beta: of preferences, see `puna.train.losses.preference_loss`.
        backbone: how all weights are trained.
        adaptors: how the adaptors are, with all other weights frozen.
        preferences: how both are, where there are preferences; a batch is one of pairs.
    """

    method: str = "qat"
    rule: str = DEFAULT_RULE
    loss: str = "distill"
    length: int = 512
    held_out: int = 0
    fake_quant_after: int = 0
    rank: int = 16
    scale: float = 2.0
    beta: float = 0.1
    backbone: TrainSettings = field(default_factory=lambda: TrainSettings(steps=200))
    adaptors: TrainSettings = field(default_factory=lambda: TrainSettings(steps=200, learning_rate=2e-4))
    preferences: TrainSettings = field(default_factory=lambda: TrainSettings(steps=200, learning_rate=5e-6))

    def __post_init__(self) -> None:
        """Validate every field; ConfigError names the first that is wrong."""
        for name, word, known in (
            ("method", self.method, METHODS),
            ("scale rule", self.rule, RULES),
            ("loss", self.loss, LOSSES),
        ):
            if word not in known:
                raise ConfigError(f"{name} {word!r} is unknown; {nearest(word, known)}")
        for name, low in (("length", 2), ("held_out", 0), ("fake_quant_after", 0), ("rank", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"`{name}` must be at least {low}, got {getattr(self, name)}")
        for name, value in (("scale", self.scale), ("beta", self.beta)):
            if not 0 < value < math.inf:
                raise ConfigError(f"`{name}` must be above 0 and finite, got {value}")
        if self.fake_quant_after and self.loss == "distill":
            raise ConfigError(
                "`fake_quant_after` is for the loss 'text': a model that follows itself has nothing to learn "
                "before rounding begins"
            )
        if self.fake_quant_after >= self.backbone.steps:
            raise ConfigError(
                f"`fake_quant_after` must be under the {self.backbone.steps} steps, got "
                f"{self.fake_quant_after}: the last steps must see the rounding"
            )


def memory_estimate(
    config: ModelConfig, recipe: QatRecipe, *, has_start: bool = False, has_preferences: bool = False
) -> int:
    """About how many bytes quantization by training needs at its peak, beside Python and torch.

    Args:
        config: the model's.
        recipe: what is asked.
        has_start: whether it goes on from a quantized model: weights are then kept in steps of the grid, too,
            for the backward pass, and embedding and head do not learn.
        has_preferences: whether pairs of answers are trained on; taken to be as long as a row.
    """
    layer = 12 * config.dim + 6 * config.ffn_dim + 4 * config.n_heads * config.head_dim
    distills = recipe.loss == "distill"
    copies = 5 + distills  # weights, gradients, AdamW's two memories, the rounded weights; the teacher
    tokens = recipe.backbone.batch * recipe.length
    logits = (6 if distills else 4) * config.vocab_size
    # Who sees whom, where conversations share rows: one mask for all layers.
    batch = tokens * (layer * config.n_layers + logits + recipe.length)
    weights = copies * config.n_parameters
    if has_start:
        tables = (1 if config.tied_embeddings else 2) * config.vocab_size * config.dim
        weights = (copies + 1) * (config.n_parameters - tables) + (2 + distills) * tables
    needs = [weights + batch]
    if recipe.method == "qat-lora":
        adapted = replace(config, lora_rank=recipe.rank)
        n_adaptors = adapted.n_parameters - config.n_parameters
        frozen = (2 + distills) * config.n_parameters + 4 * n_adaptors  # as they are, and rounded
        tokens = recipe.adaptors.batch * recipe.length
        needs.append(frozen + tokens * (layer * config.n_layers + logits))
        if has_preferences:
            tokens = 2 * recipe.preferences.batch * recipe.length
            logits = 4 * config.vocab_size
            needs.append(5 * adapted.n_parameters + tokens * (layer * config.n_layers + logits))
    return 4 * max(needs)
