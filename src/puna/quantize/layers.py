"""One layer of a model over all calibration text: what its matrices read, and the stream after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.models.config import ModelConfig
from puna.nn.fake_quantized import RoundedInputLinear, as_kind, fake_tokens
from puna.nn.model import Layer, Linear, rotary_tables
from puna.nn.rounding import GROUP

__all__ = ["BATCH_TOKENS", "MATRICES", "Inputs", "LayerRun", "Solution", "Solve", "dequantized"]

BATCH_TOKENS = 4096
"""About so many go through a layer at a time; a sequence always goes whole."""
MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
"""Names within a layer, in the order of the forward pass."""

Solution = tuple[Tensor, Tensor]
"""Integers ``[out, in]`` and scales ``[out, ceil(in / 32)]`` of a matrix."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a matrix reads, summed over all calibration text; x of the quantized model, y of the original.

    Attributes:
        hessian: sum of ``x^T x``, ``[in, in]``.
        drift: sum of ``(y - x)^T x``, ``[in, in]``; None where the original is not run beside.
    """

    hessian: Tensor
    drift: Tensor | None = None


Solve = Callable[[str, Tensor, Inputs], Solution]
"""Name of a matrix within its layer, its weight above those that read the same, and what they read."""
_Read = Callable[["LayerRun", Tensor], Tensor]


def dequantized(solution: Solution) -> Tensor:
    """The weights that integers and scales stand for, ``[out, in]``."""
    q, scales = solution
    return q.float() * scales.float().repeat_interleave(GROUP, 1)[:, : q.shape[1]]


class LayerRun:
    """A layer with the residual stream of all sequences before it, which it moves on in place."""

    def __init__(self, config: ModelConfig, layer: Layer, stream: Tensor, *, rounds_tokens: bool) -> None:
        """Bring both together.

        Args:
            config: the architecture.
            layer: the layer, float32; `quantize` replaces its weights.
            stream: ``[sequences, length, dim]`` float32, changed in place.
            rounds_tokens: whether inputs of matrices are rounded to 8 bits.
        """
        self._layer, self._rounds = layer, rounds_tokens
        if rounds_tokens:
            for name in MATRICES:
                # Within the layer, as an adaptor reads what is not rounded.
                layer.set_submodule(name, as_kind(RoundedInputLinear, self._matrix(name), config))
        self._positions = torch.arange(stream.shape[1], device=stream.device)
        self._rotary = rotary_tables(config, self._positions)
        self._batches = torch.split(stream, max(1, BATCH_TOKENS // stream.shape[1]))

    @torch.no_grad()
    def quantize(self, solve: Solve, original: LayerRun | None = None) -> Iterator[tuple[str, Solution]]:
        """Quantize the layer's matrices in the order in which they are used, each on what it will read.

        Args:
            solve: rounds matrices that read the same, one below the other.
            original: the same layer with the stream of the original model, which is moved on too.

        Yields:
            Name within the layer and rounded form of each matrix. After the last the stream is that after
            the layer.
        """
        for names, read in _STAGES:
            weights = [self._matrix(name).weight for name in names]
            rows = [len(weight) for weight in weights]
            q, scales = solve(names[0], torch.cat(weights), self._inputs(read, original))
            solutions = zip(torch.split(q, rows), torch.split(scales, rows), strict=True)
            for name, weight, solution in zip(names, weights, solutions, strict=True):
                weight.copy_(dequantized(solution))
                yield name, solution
            if names[0] in _WRITERS:
                for run in (self,) if original is None else (self, original):
                    run._add(names[0], read)

    @torch.no_grad()
    def advance(self, solutions: Mapping[str, Solution]) -> None:
        """Move the stream on with matrices that were rounded before; with none, as the original does."""
        for name, solution in solutions.items():
            self._matrix(name).weight.copy_(dequantized(solution))
        for names, read in _STAGES:
            if names[0] in _WRITERS:
                self._add(names[0], read)

    def _matrix(self, name: str) -> Linear:
        matrix = self._layer.get_submodule(name)
        assert isinstance(matrix, Linear), name
        return matrix

    def _attention_input(self, batch: Tensor) -> Tensor:
        normed: Tensor = self._layer.input_layernorm(batch)
        return normed

    def _mixed(self, batch: Tensor) -> Tensor:
        return self._layer.self_attn.mix(self._attention_input(batch), self._positions, self._rotary)

    def _feed_forward_input(self, batch: Tensor) -> Tensor:
        normed: Tensor = self._layer.post_attention_layernorm(batch)
        return normed

    def _activated(self, batch: Tensor) -> Tensor:
        return self._layer.mlp.activate(self._feed_forward_input(batch))

    def _read(self, read: _Read, i: int) -> Tensor:
        """What a matrix multiplies with, ``[tokens, in]``."""
        x = read(self, self._batches[i])
        return (fake_tokens(x) if self._rounds else x).flatten(0, 1)

    def _inputs(self, read: _Read, original: LayerRun | None) -> Inputs:
        hessian, drift = _Sum(), _Sum()
        for i in range(len(self._batches)):
            x = self._read(read, i)
            hessian.add(x.T @ x)
            if original is not None:
                drift.add((original._read(read, i) - x).T @ x)
        return Inputs(hessian.total(), None if original is None else drift.total())

    def _add(self, name: str, read: _Read) -> None:
        matrix = self._matrix(name)
        for batch in self._batches:
            batch += matrix(read(self, batch))


class _Sum:
    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, part: Tensor) -> None:
        self._total = part if self._total is None else self._total.add_(part)

    def total(self) -> Tensor:
        assert self._total is not None, "there are no batches"
        return self._total


_WRITERS = ("self_attn.o_proj", "mlp.down_proj")
_STAGES: tuple[tuple[tuple[str, ...], _Read], ...] = (
    (MATRICES[:3], LayerRun._attention_input),
    (MATRICES[3:4], LayerRun._mixed),
    (MATRICES[4:6], LayerRun._feed_forward_input),
    (MATRICES[6:], LayerRun._activated),
)
"""Matrices that read the same, and what they read, in the order of the forward pass."""
