"""The part of ``puna quantize`` that trains: its settings, and what it tells of its steps."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from puna.cli.output import duration_text, say, size_text
from puna.cli.progress import OnBar
from puna.errors import ConfigError

if TYPE_CHECKING:
    from puna.models.checkpoint import Checkpoint
    from puna.train.loop import Step

__all__ = ["TrainProgress", "TrainedOptions", "run_training"]

_RATE, _RATE_ON_GRID = 2e-5, 1e-2  # of weights, and of weights counted in steps of their grid


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOptions:
    """What the command line says about training; None where it says nothing.

    Attributes:
        method: qat or qat-lora.
        rule: for scales.
        data: texts and conversations.
        start: name or path of a quantized model to begin with.
        preferences: pairs of answers.
        loss: what is to become small.
        steps: of each stage.
        batch: rows of a step.
        length: tokens of a row.
        learning_rate: of all weights.
        adaptor_learning_rate: of the adaptors alone.
        preference_learning_rate: of both, on preferences.
        fake_quant_after: steps before rounding begins.
        held_out: rows to look at alone.
        seed: of the order of rows, and of the adaptors.
        device: where the model is trained.
    """

    method: str
    rule: str | None
    data: Path | None
    start: str | None
    preferences: Path | None
    loss: str
    steps: int
    batch: int
    length: int | None
    learning_rate: float | None
    adaptor_learning_rate: float
    preference_learning_rate: float
    fake_quant_after: int
    held_out: int
    seed: int
    device: str


def run_training(checkpoint: Checkpoint, out: Path, options: TrainedOptions) -> None:
    """Train a model for its quantized form and write that.

    Raises:
        PunaError: see `puna.train.qat.quantize_by_training`; ConfigError also where there is no data.
    """
    from puna.models.open import open_checkpoint
    from puna.models.store import path_of
    from puna.nn.rounding import DEFAULT_RULE
    from puna.train.qat import quantize_by_training
    from puna.train.qat_recipe import QatRecipe, memory_estimate
    from puna.train.settings import TrainSettings

    def settings(rate: float) -> TrainSettings:
        return TrainSettings(
            steps=options.steps,
            batch=options.batch,
            learning_rate=rate,
            warmup=options.steps // 20,
            seed=options.seed,
            evaluate_every=max(1, options.steps // 10),
        )

    rate = options.learning_rate
    if rate is None:
        rate = _RATE if options.start is None else _RATE_ON_GRID
    recipe = QatRecipe(
        method=options.method,
        rule=options.rule or DEFAULT_RULE,
        loss=options.loss,
        length=512 if options.length is None else options.length,
        held_out=options.held_out,
        fake_quant_after=options.fake_quant_after,
        backbone=settings(rate),
        adaptors=settings(options.adaptor_learning_rate),
        preferences=settings(options.preference_learning_rate),
    )
    if options.data is None:
        raise ConfigError(f"method {options.method!r} needs data to train on; give it with --data")
    if options.start is not None and options.rule is not None:
        raise ConfigError("`--rule` and `--start` cannot go together: the model has its scales already")
    start = None if options.start is None else open_checkpoint(path_of(options.start))
    needs = memory_estimate(
        checkpoint.config,
        recipe,
        has_start=start is not None,
        has_preferences=options.preferences is not None,
    )
    say(f"needs about {size_text(needs)} of memory")
    with TrainProgress() as training:
        quantize_by_training(
            checkpoint,
            out,
            recipe,
            data=options.data,
            preferences=options.preferences,
            start=start,
            progress=training,
            device=options.device,
        )


class TrainProgress(OnBar):
    """Tells of training steps on stderr: a bar at a terminal, and a line for every tenth of a stage."""

    def __init__(self) -> None:
        """Print nothing yet."""
        super().__init__()
        self._seconds, self._steps, self._loss, self._n = 0.0, 0, 0.0, 0

    def __call__(self, stage: str, step: Step, total: int) -> None:
        """Take a step; see `puna.train.qat.Progress`."""
        done = step.step + 1
        self._seconds, self._steps = self._seconds + step.seconds, self._steps + 1
        self._loss, self._n = self._loss + step.loss, self._n + 1
        if sys.stderr.isatty():
            self._show(stage, done, total, is_bytes=False)
        if 10 * done // total > 10 * (done - 1) // total:
            held_out = "" if step.held_out is None else f", held out {step.held_out:.4f}"
            left = duration_text(self._seconds / self._steps * (total - done))
            say(f"  {stage}: {done} of {total} steps, loss {self._loss / self._n:.4f}{held_out}, {left} left")
            self._loss, self._n = 0.0, 0
        if done == total:
            self._hide()
