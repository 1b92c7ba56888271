"""One layer of a model over all calibration text: what its matrices read, and the stream after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from puna.models.config import ModelConfig
from puna.nn.fake_quantized import fake_tokens
from puna.nn.model import Layer, rotary_tables
from puna.nn.rounding import GROUP

__all__ = ["MATRICES", "LayerRun", "Solution", "Solve", "dequantized"]

_BATCH_TOKENS = 4096
MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
"""Names within a layer, in the order of the forward pass."""

Solution = tuple[Tensor, Tensor]
"""Integers ``[out, in]`` and scales ``[out, ceil(in / 32)]`` of a matrix."""
Solve = Callable[[str, Tensor, Tensor], Solution]
"""Name of a matrix within its layer, its weight and the Hessian of its inputs, to its rounded form."""


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
        self._positions = torch.arange(stream.shape[1])
        self._rotary = rotary_tables(config, self._positions)
        self._batches = torch.split(stream, max(1, _BATCH_TOKENS // stream.shape[1]))

    @torch.no_grad()
    def quantize(self, solve: Solve) -> Iterator[tuple[str, Solution]]:
        """Quantize the layer's matrices in the order in which they are used, each on what it will read.

        Args:
            solve: rounds a matrix.

        Yields:
            Name within the layer and rounded form of each matrix. After the last the stream is that after
            the layer.
        """
        attention, mlp = self._layer.self_attn, self._layer.mlp
        for names, read in (
            (MATRICES[:3], self._attention_input),
            (MATRICES[3:4], self._mixed),
            (MATRICES[4:6], self._feed_forward_input),
            (MATRICES[6:], self._activated),
        ):
            hessian = self._hessian(read)
            for name in names:
                matrix = self._matrix(name)
                solution = solve(name, matrix.weight, hessian)
                matrix.weight.copy_(dequantized(solution))
                yield name, solution
            if "self_attn.o_proj" in names:
                self._add(attention.o_proj, self._mixed)
            elif "mlp.down_proj" in names:
                self._add(mlp.down_proj, self._activated)

    @torch.no_grad()
    def advance(self, solutions: Mapping[str, Solution]) -> None:
        """Move the stream on with matrices that were rounded before."""
        for name, solution in solutions.items():
            self._matrix(name).weight.copy_(dequantized(solution))
        self._add(self._layer.self_attn.o_proj, self._mixed)
        self._add(self._layer.mlp.down_proj, self._activated)

    def _matrix(self, name: str) -> nn.Linear:
        matrix = self._layer.get_submodule(name)
        assert isinstance(matrix, nn.Linear)
        return matrix

    def _round(self, x: Tensor) -> Tensor:
        return fake_tokens(x) if self._rounds else x

    def _attention_input(self, batch: Tensor) -> Tensor:
        return self._round(self._layer.input_layernorm(batch))

    def _mixed(self, batch: Tensor) -> Tensor:
        mixed = self._layer.self_attn.mix(self._attention_input(batch), self._positions, self._rotary)
        return self._round(mixed)

    def _feed_forward_input(self, batch: Tensor) -> Tensor:
        return self._round(self._layer.post_attention_layernorm(batch))

    def _activated(self, batch: Tensor) -> Tensor:
        return self._round(self._layer.mlp.activate(self._feed_forward_input(batch)))

    def _hessian(self, read: Callable[[Tensor], Tensor]) -> Tensor:
        total: Tensor | None = None
        for batch in self._batches:
            x = read(batch).flatten(0, 1)
            part = x.T @ x
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _add(self, matrix: nn.Module, read: Callable[[Tensor], Tensor]) -> None:
        for batch in self._batches:
            batch += matrix(read(batch))
