"""Quantizing a checkpoint into a Puna checkpoint: `quantize`.

Embedding and head become 8-bit rows, every matrix of the blocks 4-bit groups of 32. Rounding to nearest
has one matrix in memory at a time. GPTQ has one layer, and the residual stream of the calibration text;
each layer is kept beside the new folder when it is done, so that an interrupted run goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.checkpoint import Checkpoint, Vocabulary
from puna.models.checkpoint import Tensor as StoredTensor
from puna.models.config import ModelConfig
from puna.models.packed import PackedMatrix, is_float, write_checkpoint
from puna.nn.model import Layer
from puna.nn.packed import pack_groups, pack_rows
from puna.nn.rounding import group_scales, round_groups, round_rows
from puna.quantize.calibration import calibration_tokens
from puna.quantize.finished_layers import FinishedLayers
from puna.quantize.gptq import gptq
from puna.quantize.layers import MATRICES, Inputs, LayerRun, Solution
from puna.quantize.recipe import Recipe
from puna.tokens import Tokenizer

__all__ = ["memory_estimate", "quantize"]

_TABLES = ("model.embed_tokens.weight", "lm_head.weight")

Progress = Callable[[int, int], None]
"""Called with the number of matrices done and in all."""


def memory_estimate(config: ModelConfig, recipe: Recipe) -> int:
    """About how many bytes `quantize` needs at its peak, beside Python and torch."""
    widest = max(config.ffn_dim, config.dim)
    if recipe.method == "ptq":
        return 4 * 4 * max(config.vocab_size, config.ffn_dim) * config.dim
    layer = sum(
        rows * columns
        for rows, columns in (
            s for n, s in config.tensor_shapes().items() if ".layers.0." in n and len(s) == 2
        )
    )
    stream = recipe.sequences * recipe.length * config.dim
    return 4 * (stream + 2 * layer + 4 * widest * widest + 2 * config.vocab_size * config.dim)


def quantize(
    checkpoint: Checkpoint,
    out: Path,
    recipe: Recipe,
    *,
    calibration: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Quantize a checkpoint and write it as a Puna checkpoint, all of it or nothing.

    Args:
        checkpoint: any that Puna reads, with a vocabulary.
        out: the folder to make; it must not exist yet.
        recipe: how.
        calibration: text for GPTQ, see `puna.quantize.calibration.read_texts`.
        progress: told of every matrix.

    Raises:
        ConfigError: there is no calibration text, or too little.
        CheckpointError: the checkpoint is damaged, or has a weight that cannot be quantized.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    if out.exists():
        raise StoreError(f"{out} exists already; remove it first or choose another name")
    if recipe.method == "ptq":
        write_checkpoint(_Rounded(checkpoint, recipe.rule), out, "auto", progress)
        return
    if calibration is None:
        raise ConfigError(f"method {recipe.method!r} needs calibration text; give a file, folder or .jsonl")
    tokenizer = Tokenizer(checkpoint.vocabulary())
    tokens = calibration_tokens(calibration, tokenizer, sequences=recipe.sequences, length=recipe.length)
    work = FinishedLayers(out.with_name(f".{out.name}.quantizing"))
    _solve_layers(checkpoint, tokens, recipe, work, progress)
    write_checkpoint(_Solved(checkpoint, work), out, "auto")
    work.remove()


class _Rounded:
    """A checkpoint whose matrices are rounded to nearest when they are asked for; a `PackedSource`."""

    def __init__(self, source: Checkpoint, rule: str = "") -> None:
        self._source, self._rule = source, rule
        self.path, self.kind, self.config = source.path, source.kind, source.config
        self.dtypes = {
            name: "F32" if len(shape) == 1 else _target(name)
            for name, shape in source.config.tensor_shapes().items()
        }

    def tensor(self, name: str) -> StoredTensor:
        return self._source.tensor(name)

    def vocabulary(self) -> Vocabulary:
        return self._source.vocabulary()

    def packed(self, name: str) -> PackedMatrix:
        try:
            return (
                pack_rows(*_table(self._source, name)) if name in _TABLES else pack_groups(*self.groups(name))
            )
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {name}: {error}") from error

    def groups(self, name: str) -> Solution:
        weight = torch.from_numpy(self._source.tensor(name).to_float32())
        scales = group_scales(weight, self._rule)
        return round_groups(weight, scales), scales


class _Solved(_Rounded):
    """The same with the matrices of the blocks from the files of finished layers."""

    def __init__(self, source: Checkpoint, work: FinishedLayers) -> None:
        super().__init__(source)
        self._work = work

    def groups(self, name: str) -> Solution:
        _, _, index, part = name.removesuffix(".weight").split(".", 3)
        return self._work.read(int(index), part)


def _target(name: str) -> str:
    # What is not the name of a packed format is packed from its floats.
    return "BF16" if is_float(name) else "int8_channel" if name in _TABLES else "int4_group32"


def _table(source: Checkpoint, name: str) -> tuple[Tensor, Tensor]:
    return round_rows(torch.from_numpy(source.tensor(name).to_float32()))


def _solve_layers(
    checkpoint: Checkpoint, tokens: Tensor, recipe: Recipe, work: FinishedLayers, progress: Progress | None
) -> None:
    config = checkpoint.config
    work.begin(
        {
            "model": str(checkpoint.path.absolute()),
            "recipe": asdict(recipe),
            "tokens": hashlib.sha256(tokens.numpy().tobytes()).hexdigest(),
        }
    )
    q, scales = _table(checkpoint, _TABLES[0])
    stream = q[tokens] * scales[tokens]
    done = 0

    def solve(name: str, weight: Tensor, inputs: Inputs) -> Solution:
        if not inputs.hessian.isfinite().all():
            raise CheckpointError(f"{checkpoint.path}: what {name} reads is not finite; are the weights?")
        return gptq(
            weight, inputs.hessian, rule=recipe.rule, damping=recipe.damping, act_order=recipe.act_order
        )

    for index in range(config.n_layers):
        layer = _layer(checkpoint, index)
        run = LayerRun(config, layer, stream, rounds_tokens=recipe.rounds_tokens)
        if work.has(index):
            run.advance({part: work.read(index, part) for part in MATRICES})
            done += len(MATRICES)
            continue
        solutions = {}
        for part, solution in run.quantize(solve):
            solutions[part] = solution
            done += 1
            if progress is not None:
                progress(done, len(MATRICES) * config.n_layers)
        work.write(index, solutions)


def _layer(checkpoint: Checkpoint, index: int) -> Layer:
    with torch.device("meta"):
        layer = Layer(checkpoint.config, index)
    weights = {
        name: torch.from_numpy(checkpoint.tensor(f"model.layers.{index}.{name}").to_float32())
        for name in layer.state_dict()
    }
    layer.load_state_dict(weights, assign=True)
    return layer
