"""Learning rotations: the loss of the model with activations rounded to 8 bits, gone down by Cayley steps.

Weights are not rounded here: GPTQ will do that, and rotations that suit rounding to nearest suit it less.
Nor are they turned: what a matrix reads is turned, rounded and turned back, ``round(x R) R^T``, which is the
same function of R among the orthogonal matrices. So weights stay what they are in the file, and a step needs
no gradient of them.

Source: Liu et al. 2024, https://arxiv.org/abs/2405.16406, section 3.2. One sequence a step, where they took
eight; what the head reads is rounded too, as the engine does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint
from puna.nn.fake_quantized import fake_tokens
from puna.nn.model import RMSNorm, Transformer, hadamard
from puna.quantize.cayley import cayley_step, nearest_rotation, skew_direction
from puna.quantize.network import frozen_network, hold_as_halves, mean_over_tokens
from puna.quantize.rotations import Rotations

__all__ = ["learn_rotations", "turned_network"]

_RATE, _LARGEST = 1.5, 1.0  # the first learning rate, and the norm beyond which directions are made shorter

AfterStep = Callable[[int, Rotations], None]
"""Called with the number of steps done and the rotations after them."""


def learn_rotations(
    checkpoint: Checkpoint,
    tokens: Tensor,
    rotations: Rotations,
    *,
    steps: int,
    done: int = 0,
    after_step: AfterStep | None = None,
    device: torch.device | str = "cpu",
) -> Rotations:
    """Make a model lose less by the rounding of its activations.

    Args:
        checkpoint: the model, not rotated.
        tokens: ids ``[sequences, length]``; step i takes sequence i, modulo their number.
        rotations: those to begin with, or to go on with.
        steps: how many in all; the rate goes to 0 as a cosine over all of them.
        done: how many of them led to `rotations`.
        after_step: told of every step.
        device: where it is computed.

    Returns:
        The nearest orthogonal matrices to what was learned.

    Raises:
        CheckpointError: the loss is not finite, as a weight is not.
    """
    tokens, rotations = tokens.to(device), _moved(rotations, device)
    network, turns = turned_network(checkpoint, rotations)
    for step in range(done, steps):
        loss = _loss(network, tokens[step % len(tokens)])
        if not loss.isfinite():
            raise CheckpointError(f"{checkpoint.path}: the loss of the model is not finite; are its weights?")
        gradients = [turn.double() for turn in torch.autograd.grad(loss, turns)]
        rate = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        rotations = _stepped(rotations, gradients, rate)
        with torch.no_grad():
            for turn, matrix in zip(turns, [rotations.stream, *rotations.values], strict=True):
                turn.copy_(matrix)
        if after_step is not None:
            after_step(step + 1, rotations)
    return _moved(Rotations(nearest_rotation(rotations.stream), nearest_rotation(rotations.values)), "cpu")


def _moved(rotations: Rotations, device: torch.device | str) -> Rotations:
    return Rotations(rotations.stream.to(device), rotations.values.to(device))


def _stepped(rotations: Rotations, gradients: list[Tensor], rate: float) -> Rotations:
    values = skew_direction(rotations.values, torch.stack(gradients[1:]))
    stream = skew_direction(rotations.stream, gradients[0])
    # The gradient itself has a part that stretches, which depends on how the network is written.
    norm = math.hypot(float(stream.norm()), float(values.norm()))
    shorter = min(1.0, _LARGEST / (norm + 1e-6))
    return Rotations(
        cayley_step(rotations.stream, stream * shorter, rate),
        cayley_step(rotations.values, values * shorter, rate),
    )


def turned_network(checkpoint: Checkpoint, rotations: Rotations) -> tuple[Transformer, list[nn.Parameter]]:
    """A model whose matrices read activations that are turned, rounded to 8 bits and turned back.

    Args:
        checkpoint: the model, not rotated.
        rotations: those to begin with; the model is where they are.

    Returns:
        The model, and its only parameters: R1, then R2 of each layer, float32.
    """
    model = frozen_network(checkpoint, rotations.stream.device)
    turns = [nn.Parameter(matrix.float()) for matrix in (rotations.stream, *rotations.values)]
    trunk, stream = model.model, turns[0]
    for layer, values in zip(trunk.layers, turns[1:], strict=True):
        for name in ("input_layernorm", "post_attention_layernorm"):
            setattr(layer, name, _TurnedNorm(getattr(layer, name), stream, gain_first=False))
        for name, turned in (
            ("self_attn.o_proj", _TurnedHeads(values)),
            ("mlp.down_proj", _TurnedDown(checkpoint.config.rotation_block)),
        ):
            layer.set_submodule(name, nn.Sequential(turned, layer.get_submodule(name)))
    norm = _TurnedNorm(trunk.norm, stream, gain_first=checkpoint.config.tied_embeddings)
    trunk.set_submodule("norm", norm)
    hold_as_halves(model)
    return model, turns


class _TurnedNorm(nn.Module):
    """A norm whose output is rounded as R1 turns it, before or behind its gain."""

    def __init__(self, norm: RMSNorm, turn: nn.Parameter, *, gain_first: bool) -> None:
        super().__init__()
        self.gain, self.turn, self.gain_first = norm.weight, turn, gain_first
        self.norm = RMSNorm(len(self.gain), norm.eps).requires_grad_(False).to(self.gain.device)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.gain_first:
            return _turned(x * self.gain, self.turn)
        return _turned(x, self.turn) * self.gain


class _TurnedHeads(nn.Module):
    """What the output projection reads, each head turned by R2."""

    def __init__(self, turn: nn.Parameter) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, len(self.turn))
        rounded = fake_tokens((torch.unflatten(x, -1, shape) @ self.turn).flatten(-2))
        turned_back: Tensor = torch.unflatten(rounded, -1, shape) @ self.turn.T
        return turned_back.flatten(-2)


class _TurnedDown(nn.Module):
    """What the down projection reads, turned by R4, which is its own inverse."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return hadamard(fake_tokens(hadamard(x, self.block)), self.block)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    return fake_tokens(x @ turn) @ turn.T


def _loss(network: Transformer, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of the next token over ids ``[length]``."""

    def of_rows(hidden: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(network.lm_head(hidden), wanted, reduction="sum")

    return mean_over_tokens(of_rows, network.model(tokens[None])[0, :-1], tokens[1:])
