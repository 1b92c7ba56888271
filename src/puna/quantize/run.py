"""Quantizing a checkpoint into a Puna checkpoint: `quantize`.

Embedding and head become 8-bit rows, every matrix of the blocks 4-bit groups of 32. Rounding to nearest
has one matrix in memory at a time. GPTQ has one layer, and the residual stream of the calibration text. What
learns, rotations before it and scales behind it, reads the whole model from mapped files. Rotations, each
layer and scales are kept beside the new folder when they are done, so that an interrupted run goes on from
there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.errors import CheckpointError, ConfigError
from puna.models.checkpoint import Checkpoint
from puna.models.new_folder import require_new
from puna.models.packed import write_checkpoint
from puna.nn.model import Layer
from puna.nn.rounding import round_rows
from puna.quantize.calibration import calibration_tokens, check_length
from puna.quantize.distill import State, distill
from puna.quantize.finished_layers import FinishedLayers
from puna.quantize.gptq import gptq
from puna.quantize.layers import MATRICES, Inputs, LayerRun, Solution
from puna.quantize.learn_rotations import learn_rotations
from puna.quantize.recipe import Recipe
from puna.quantize.rotations import RotatedCheckpoint, Rotations, random_rotations
from puna.quantize.rounded import EMBEDDING, RoundedCheckpoint, SolvedCheckpoint
from puna.quantize.work_folder import WorkFolder, identity
from puna.tokens import Tokenizer

__all__ = ["quantize"]

_KEPT_STEPS = 10  # after so many, what was learned is kept
_BYTES_A_WEIGHT = 2  # on disk: integers of 8 bits and scales until all is done, and the new model

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage and how many of its matrices or steps are done and there in all."""


def quantize(
    checkpoint: Checkpoint,
    out: Path,
    recipe: Recipe,
    *,
    calibration: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Quantize a checkpoint and write it as a Puna checkpoint, all of it or nothing.

    Args:
        checkpoint: any that Puna reads, with a vocabulary.
        out: the folder to make; it must not exist yet.
        recipe: how.
        calibration: text for all methods but ptq, see `puna.quantize.calibration.read_texts`.
        progress: told of every matrix, and every step of learning.
        device: where all methods but ptq compute; unfinished work may go on on another.

    Raises:
        ConfigError: there is no calibration text, or too little, or unfinished work was asked for something
            else.
        CheckpointError: the checkpoint is damaged, or has a weight that cannot be quantized.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    require_new(out)
    if recipe.method == "ptq":
        told = None if progress is None else partial(progress, "rounding")
        write_checkpoint(RoundedCheckpoint(checkpoint, recipe.rule), out, "auto", told)
        return
    if recipe.rotates and checkpoint.config.additions:
        raise ConfigError(
            f"{checkpoint.path} has {' and '.join(checkpoint.config.additions)}; method {recipe.method!r} "
            "needs the plain model that it was made from"
        )
    if calibration is None:
        raise ConfigError(f"method {recipe.method!r} needs calibration text; give a file, folder or .jsonl")
    check_length(checkpoint, recipe.length)
    tokenizer = Tokenizer(checkpoint.vocabulary())
    tokens = calibration_tokens(calibration, tokenizer, sequences=recipe.sequences, length=recipe.length)
    _require_finite(checkpoint)
    work = WorkFolder(out.with_name(f".{out.name}.quantizing"))
    work.begin(
        {
            "model": identity(checkpoint),
            "method": recipe.method,
            "text": hashlib.sha256(tokens.numpy().tobytes()).hexdigest(),
        },
        _BYTES_A_WEIGHT * checkpoint.config.n_parameters,
    )
    turning, rounding, scaling = _begin_stages(work, recipe)
    rotated, shuffled = checkpoint, _shuffled(tokens, recipe.seed)
    if recipe.rotates:
        rotations = _rotations(checkpoint, shuffled, recipe, turning, progress, device)
        rotated = RotatedCheckpoint(checkpoint, rotations)
    layers = FinishedLayers(rounding)
    _solve_layers(rotated, tokens, recipe, layers, progress, device)
    growths: State = {}
    if recipe.distills:
        growths = _distilled(checkpoint, rotated, layers, shuffled, recipe, scaling, progress, device)
    write_checkpoint(SolvedCheckpoint(rotated, layers, growths), out, "auto")
    work.remove()


def _begin_stages(work: WorkFolder, recipe: Recipe) -> list[WorkFolder]:
    """A folder for each stage: rotations, layers, scales.

    Each knows of the options that it and those before it depend on, and of no others: an option of a late
    stage may change while the early ones stay. All are looked at before any work.
    """
    turned = {"rotation_steps": recipe.rotation_steps, "seed": recipe.seed} if recipe.rotates else {}
    rounded = {
        **turned,
        "rule": recipe.rule,
        "damping": recipe.damping,
        "act_order": recipe.act_order,
        "rounds_tokens": recipe.rounds_tokens,
        "follows_original": recipe.follows_original,
    }
    scaled = {**rounded, "distill_steps": recipe.distill_steps} if recipe.distills else {}
    stages: dict[str, dict[str, Any]] = {"rotations": turned, "layers": rounded, "scales": scaled}
    folders = []
    for name, asked in stages.items():
        folders.append(WorkFolder(work.path / name))
        folders[-1].begin(asked)
    return folders


def _require_finite(checkpoint: Checkpoint) -> None:
    """Look at all weights, which takes seconds, before the hours that one bad weight would spoil."""
    for name in checkpoint.dtypes:
        if not np.isfinite(checkpoint.tensor(name).to_float32()).all():
            raise CheckpointError(f"{checkpoint.path}: {name!r:.100} has a weight that is not finite")


def _shuffled(tokens: Tensor, seed: int) -> Tensor:
    """The sequences in another order: few steps of learning then see all parts of the text."""
    return tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))]


def _rotations(
    checkpoint: Checkpoint,
    tokens: Tensor,
    recipe: Recipe,
    work: WorkFolder,
    progress: Progress | None,
    device: torch.device | str,
) -> Rotations:
    """Those that were kept, learned to the end where they are not yet."""
    rotations, done, steps = random_rotations(checkpoint.config, recipe.seed), 0, recipe.rotation_steps
    kept = work.load("state")
    if kept is not None:
        done, rotations = kept[0]["steps"], Rotations(kept[1]["stream"], kept[1]["values"])
    if done == steps:
        return rotations

    def after_step(done: int, rotations: Rotations) -> None:
        if progress is not None:
            progress("learning rotations", done, steps)
        if done % _KEPT_STEPS == 0 and done < steps:
            work.save("state", asdict(rotations), {"steps": done})

    rotations = learn_rotations(
        checkpoint, tokens, rotations, steps=steps, done=done, after_step=after_step, device=device
    )
    work.save("state", asdict(rotations), {"steps": steps})
    return rotations


def _distilled(
    original: Checkpoint,
    rounded: Checkpoint,
    layers: FinishedLayers,
    tokens: Tensor,
    recipe: Recipe,
    work: WorkFolder,
    progress: Progress | None,
    device: torch.device | str,
) -> State:
    """How much scales and norms grow, kept or learned."""
    steps, kept = recipe.distill_steps, work.load("state")
    done, state = (0, None) if kept is None else (kept[0]["steps"], kept[1])
    if state is not None and done == steps:
        return state

    def after_step(done: int, state: State) -> None:
        if progress is not None:
            progress("distilling", done, steps)
        if done % _KEPT_STEPS == 0 and done < steps:
            work.save("state", state, {"steps": done})

    state = distill(
        original,
        rounded,
        layers.read,
        tokens,
        steps=steps,
        done=done,
        state=state,
        after_step=after_step,
        device=device,
    )
    work.save("state", state, {"steps": steps})
    return state


def _solve_layers(
    checkpoint: Checkpoint,
    tokens: Tensor,
    recipe: Recipe,
    layers: FinishedLayers,
    progress: Progress | None,
    device: torch.device | str,
) -> None:
    config, done = checkpoint.config, 0

    def solve(name: str, weight: Tensor, inputs: Inputs) -> Solution:
        if not all(
            moment.isfinite().all() for moment in (inputs.hessian, inputs.drift) if moment is not None
        ):
            raise CheckpointError(
                f"{checkpoint.path}: what {name} reads is not finite; are its weights too large?"
            )
        q, scales = gptq(
            weight,
            inputs.hessian,
            rule=recipe.rule,
            damping=recipe.damping,
            act_order=recipe.act_order,
            drift=inputs.drift,
        )
        if not scales.isfinite().all():
            raise CheckpointError(f"{checkpoint.path}: {name} has a weight that is too large for its scale")
        return q, scales

    stream = _embedded(checkpoint, tokens, is_rounded=True).to(device)
    plain = None
    if recipe.follows_original:
        plain = _embedded(checkpoint, tokens, is_rounded=False).to(device)
    for index in range(config.n_layers):
        run = LayerRun(
            config, _layer(checkpoint, index).to(device), stream, rounds_tokens=recipe.rounds_tokens
        )
        original = None
        if plain is not None:
            original = LayerRun(config, _layer(checkpoint, index).to(device), plain, rounds_tokens=False)
        if layers.has(index):
            run.advance({part: layers.read(index, part) for part in MATRICES})
            if original is not None:
                original.advance({})
            done += len(MATRICES)
            continue
        solutions = {}
        for part, (q, scales) in run.quantize(solve, original):
            solutions[part] = q.to(torch.int8), scales
            done += 1
            if progress is not None:
                progress("rounding", done, len(MATRICES) * config.n_layers)
        layers.write(index, solutions)


def _embedded(checkpoint: Checkpoint, tokens: Tensor, *, is_rounded: bool) -> Tensor:
    """Rows of the embedding, ``[sequences, length, dim]``."""
    ids, places = torch.unique(tokens, return_inverse=True)
    rows = torch.from_numpy(checkpoint.tensor(EMBEDDING).to_float32())[ids]
    if is_rounded:
        q, scales = round_rows(rows)
        rows = q * scales
    return rows[places]


def _layer(checkpoint: Checkpoint, index: int) -> Layer:
    with torch.device("meta"):
        layer = Layer(checkpoint.config, index)
    weights = {
        name: torch.from_numpy(checkpoint.tensor(f"model.layers.{index}.{name}").to_float32())
        for name in layer.state_dict()
    }
    layer.load_state_dict(weights, assign=True)
    return layer
