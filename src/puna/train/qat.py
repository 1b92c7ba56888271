"""Quantization-aware training: `quantize_by_training`, from a checkpoint to a 4-bit one.

The model computes as its quantized form will while it learns, so that its weights settle where rounding
does least harm. ``qat`` trains all weights, or goes on from a quantized model with its integers, scales and
norms. ``qat-lora`` then freezes the weights and trains bf16 adaptors beside the 4-bit matrices, and where
there are preferences, both on those: the order in which the Llama 3.2 quantized models were made.

What a stage of training has done lies in a folder beside the new one, from which the same call goes on after
a break.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from puna.errors import CheckpointError, ConfigError
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.new_folder import require_new
from puna.models.packed import write_checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.nn.fake_quantized import fake_quantize
from puna.nn.grid import keep_grid
from puna.nn.model import Transformer
from puna.nn.packed import ModelCheckpoint
from puna.quantize.calibration import check_length
from puna.quantize.work_folder import identity
from puna.train.adaptors import adaptor_parameters, add_adaptors, check_adaptable
from puna.train.data import Pair, load_pairs, load_rows
from puna.train.loop import Data, Loss, Step, train
from puna.train.losses import cross_entropy, distillation
from puna.train.pairs import PairBatch, Pairs, dpo_loss
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
    preferences: Path | None = None,
    start: Checkpoint | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Train a model for its quantized form and write that as a Puna checkpoint, all of it or nothing.

    Args:
        checkpoint: any that Puna reads, with a vocabulary.
        out: the folder to make; it must not exist yet.
        recipe: how.
        data: texts and conversations, see `puna.train.records`.
        preferences: pairs of answers, for ``qat-lora`` alone; None for no training on them.
        start: what `puna.quantize` made of `checkpoint`, rotated or not, to begin with in its place; for
            ``qat`` alone.
        progress: told of every step.
        device: where the model is trained.

    Raises:
        ConfigError: the data cannot be used, or unfinished work was asked for something else.
        CheckpointError: the checkpoint is damaged, or has a weight that is no number.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    require_new(out)
    if preferences is not None and recipe.method != "qat-lora":
        raise ConfigError(f"preferences are for the method 'qat-lora', got {recipe.method!r}")
    if start is not None:
        _check_start(start, checkpoint, recipe)
    check_length(checkpoint, recipe.length)
    vocabulary = checkpoint.vocabulary()
    rows, held_out = load_rows(data, vocabulary, recipe.length).split(recipe.held_out)
    pairs = [] if preferences is None else load_pairs(preferences, vocabulary, recipe.length)
    work = RunFolder(out.with_name(f".{out.name}.training"))
    run = _Run(checkpoint, recipe, rows, held_out, work.path, progress, start, device)
    work.begin(
        {
            "model": identity(checkpoint),
            "start": None if start is None else identity(start),
            "data": _digest(rows, held_out),
            "preferences": _digest_pairs(pairs),
            "recipe": asdict(recipe),
        },
        # Weights and AdamW's two memories: of each stage, and of the running one the old beside the new.
        12 * checkpoint.config.n_parameters * (2 + bool(pairs)),
    )
    run.backbone()
    if recipe.method == "qat-lora":
        run.adaptors()
    if pairs:
        run.preferences(pairs)
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
        start: Checkpoint | None,
        device: torch.device | str,
    ) -> None:
        check_adaptable(checkpoint.config, recipe.rank)
        source = checkpoint if start is None else start
        self.model = from_checkpoint(source, device=device)
        _check_finite(source, self.model)
        self._is_rounding = start is not None
        self._learned = dict(self.model.named_parameters()) if start is None else keep_grid(self.model, start)
        self._teacher = None
        if recipe.loss == "distill":
            self._teacher = from_checkpoint(checkpoint, device=device).requires_grad_(False)
            _check_finite(checkpoint, self._teacher)
        self._recipe, self._rows, self._held_out = recipe, rows, held_out
        self._work, self._progress, self._device = work, progress, device

    def backbone(self) -> None:
        """Train all weights, or what is on a grid, with rounding from the step on that the recipe says."""
        recipe = self._recipe

        def before_step(step: int) -> None:
            if step >= recipe.fake_quant_after and not self._is_rounding:
                fake_quantize(self.model, recipe.rule)
                self._is_rounding = True

        self._stage("backbone", recipe.backbone, self._learned, self._loss, self._rows, before_step)
        before_step(recipe.backbone.steps)  # where a run that goes on had no step left

    def adaptors(self) -> None:
        """Freeze the weights, put adaptors beside them, and train those."""
        recipe = self._recipe
        self.model = add_adaptors(self.model, rank=recipe.rank, scale=recipe.scale, seed=recipe.adaptors.seed)
        fake_quantize(self.model, recipe.rule)
        parameters = adaptor_parameters(self.model)
        self.model.requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        self._stage("adaptors", recipe.adaptors, parameters, self._loss, self._rows)

    def preferences(self, pairs: Sequence[Pair]) -> None:
        """Train weights and adaptors on preferences."""
        settings = self._recipe.preferences
        self._teacher = None  # its memory is needed for the answers
        self.model.requires_grad_(True)
        data = Pairs(pairs, self.model, settings.batch)

        def loss(batch: PairBatch, /) -> tuple[Tensor, int]:
            return dpo_loss(self.model, batch, self._recipe.beta)

        self._stage("preferences", settings, dict(self.model.named_parameters()), loss, data)

    def _loss(self, batch: Batch, /) -> tuple[Tensor, int]:
        batch = batch.to(self._device)
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


def _check_start(start: Checkpoint, checkpoint: Checkpoint, recipe: QatRecipe) -> None:
    if recipe.method != "qat":
        raise ConfigError(f"a model to start with is for the method 'qat', got {recipe.method!r}")
    if recipe.fake_quant_after:
        raise ConfigError("`fake_quant_after` must be 0 with a model to start with: it is rounded already")
    check_adaptable(start.config, recipe.rank)
    here, there = (_computed(model.config) for model in (checkpoint, start))
    for name, value in here.items():
        if not np.allclose(value, there[name], rtol=1e-5, atol=0):  # some files keep them in float32
            raise ConfigError(
                f"{start.path} was not made from {checkpoint.path}: `{name}` is {there[name]!s:.40} there "
                f"and {value!s:.40} here"
            )


def _computed(config: ModelConfig) -> dict[str, Any]:
    """What a model has in common with all that is made from it."""
    names = ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "vocab_size", "norm_eps")
    return {**{name: getattr(config, name) for name in names}, "rope_frequencies": config.rope_frequencies()}


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


def _digest_pairs(pairs: Sequence[Pair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr([(answer.ids, answer.said) for answer in pair]).encode())
    return digest.hexdigest()
