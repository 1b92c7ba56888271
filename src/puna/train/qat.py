"""Quantization-aware training: `quantize_by_training`, from a checkpoint to a 4-bit one.

The model computes as its quantized form will while it learns, so that its weights settle where rounding
does least harm. What a stage of training has done lies in a folder beside the new one, from which the same
call goes on after a break.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from puna.errors import CheckpointError, StoreError
from puna.models.checkpoint import Checkpoint
from puna.models.packed import write_checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.nn.fake_quantized import fake_quantize
from puna.nn.model import Transformer
from puna.nn.packed import ModelCheckpoint
from puna.train.data import load_rows
from puna.train.loop import Data, Loss, Step, train
from puna.train.losses import cross_entropy, distillation
from puna.train.qat_recipe import QatRecipe
from puna.train.rows import Batch, Rows
from puna.train.settings import TrainSettings
from puna.train.state import RunFolder

__all__ = ["Progress", "quantize_by_training"]

Progress = Callable[[str, Step, int], None]
"""Told of every step: the stage, what it did, and the stage's steps in all."""


def quantize_by_training(
    checkpoint: Checkpoint,
    out: Path,
    recipe: QatRecipe,
    *,
    data: Path,
    progress: Progress | None = None,
) -> None:
    """Train a model for its quantized form and write that as a Puna checkpoint, all of it or nothing.

    Args:
        checkpoint: any that Puna reads, with a vocabulary.
        out: the folder to make; it must not exist yet.
        recipe: how.
        data: texts and conversations, see `puna.train.records`.
        progress: told of every step.

    Raises:
        ConfigError: the data cannot be used, or unfinished work was asked for something else.
        CheckpointError: the checkpoint is damaged, or has a weight that is no number.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    if out.exists():
        raise StoreError(f"{out} exists already; remove it first or choose another name")
    vocabulary = checkpoint.vocabulary()
    rows, held_out = load_rows(data, vocabulary, recipe.length).split(recipe.held_out)
    work = RunFolder(out.with_name(f".{out.name}.training"))
    run = _Run(checkpoint, recipe, rows, held_out, work.path, progress)
    work.begin(
        {
            "model": str(checkpoint.path.absolute()),
            "data": _digest(rows, held_out),
            "recipe": asdict(recipe),
        }
    )
    run.backbone()
    write_checkpoint(ModelCheckpoint(run.model, vocabulary, str(checkpoint.path)), out, "auto")
    work.remove()


class _Run:
    """The stages, one after the other on one model."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: QatRecipe,
        rows: Rows,
        held_out: Rows,
        work: Path,
        progress: Progress | None,
    ) -> None:
        self.model = from_checkpoint(checkpoint)
        _check_finite(checkpoint, self.model)
        self._teacher = None
        if recipe.loss == "distill":
            self._teacher = from_checkpoint(checkpoint).requires_grad_(False)
        self._recipe, self._rows, self._held_out = recipe, rows, held_out
        self._work, self._progress = work, progress

    def backbone(self) -> None:
        """Train all weights, with rounding from the step on that the recipe says."""
        model, recipe = self.model, self._recipe
        is_rounding = False

        def before_step(step: int) -> None:
            nonlocal is_rounding
            if step >= recipe.fake_quant_after and not is_rounding:
                fake_quantize(model, recipe.rule)
                is_rounding = True

        parameters = dict(model.named_parameters())
        self._stage("backbone", recipe.backbone, parameters, self._loss, self._rows, before_step)
        before_step(recipe.backbone.steps)  # where a run that goes on had no step left

    def _loss(self, batch: Batch, /) -> tuple[Tensor, int]:
        if self._teacher is None:
            return cross_entropy(self.model, batch)
        return distillation(self.model, self._teacher, batch)

    def _stage(
        self,
        name: str,
        settings: TrainSettings,
        parameters: dict[str, nn.Parameter],
        loss: Loss[Any],
        data: Data[Any],
        before_step: Callable[[int], None] | None = None,
    ) -> None:
        folder = RunFolder(self._work / name)
        folder.begin({})
        progress = self._progress
        train(
            parameters,
            data,
            loss,
            settings,
            folder,
            held_out=self._held_out if isinstance(data, Rows) else None,
            before_step=before_step,
            progress=None if progress is None else lambda step: progress(name, step, settings.steps),
        )


def _check_finite(checkpoint: Checkpoint, model: Transformer) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise CheckpointError(f"{checkpoint.path}: {name} has a weight that is not finite")


def _digest(*parts: Rows) -> str:
    digest = hashlib.sha256()
    for rows in parts:
        for tensor in (rows.tokens, rows.targets, rows.segments):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
