"""Distilling a rounded model: its scales and norms learn to predict what the original predicts.

The integers stay what GPTQ made them. A gradient of the whole model tells a scale what solving one matrix at
a time cannot: what its errors cost at the end. That only scales are trained end to end is an idea of
EfficientQAT (Chen et al. 2024, https://arxiv.org/abs/2407.11062, section 3.3); the loss here is the
divergence from the original's predictions, token by token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, linear

from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint
from puna.nn.model import Transformer
from puna.nn.rounding import GROUP, round_rows
from puna.quantize.layers import Solution
from puna.quantize.network import Rounded, frozen_network, hold_as_halves, mean_over_tokens, product

__all__ = ["distill"]

Read = Callable[[int, str], Solution]
"""Layer and name within it of a matrix, to its rounded form."""


AfterStep = Callable[[int, "State"], None]
"""Called with the number of steps done and what leads on from there."""
State = dict[str, Tensor]
"""What was learned, by the name of the tensor that it changes; and what Adam knows of each."""

_RATE, _BETAS = 2e-3, (0.9, 0.95)


def distill(
    original: Checkpoint,
    rounded: Checkpoint,
    read: Read,
    tokens: Tensor,
    *,
    steps: int,
    rate: float = _RATE,
    done: int = 0,
    state: State | None = None,
    after_step: AfterStep | None = None,
    device: torch.device | str = "cpu",
) -> State:
    """Learn how much larger each scale and each dimension of a norm should be.

    Args:
        original: the model to predict as.
        rounded: the model whose matrices were rounded, rotated or not, before that was done.
        read: its rounded matrices.
        tokens: ids ``[sequences, length]``; step i takes sequence i, modulo their number.
        steps: how many in all; the rate goes to 0 as a cosine over all of them.
        rate: the first learning rate of Adam, as a share of each number.
        done: how many of them led to `state`.
        state: what to go on with.
        after_step: told of every step.
        device: where it is computed.

    Returns:
        For each matrix of the blocks, under its name, shares ``[out, ceil(in / 32)]`` that scales grow by;
        for each norm ``[dim]``, that its outputs grow by.

    Raises:
        CheckpointError: the loss is not finite, as a weight is not.
    """
    tokens = tokens.to(device)
    teacher = frozen_network(original, device)
    hold_as_halves(teacher)
    student, growths = _student(rounded, read, device)
    adam = torch.optim.Adam(growths.values(), betas=_BETAS)
    if state is not None:
        _restore(adam, growths, state, done)
    for step in range(done, steps):
        adam.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        loss = _divergence(teacher, student, tokens[step % len(tokens)])
        if not loss.isfinite():
            raise CheckpointError(f"{original.path}: the loss of the model is not finite; are its weights?")
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        if after_step is not None:
            after_step(step + 1, _state(adam, growths))
    return {name: growth.detach().cpu() for name, growth in growths.items()}


def _divergence(teacher: Transformer, student: Transformer, tokens: Tensor) -> Tensor:
    """Mean divergence of the student's predictions from the teacher's over ids ``[length]``."""
    with torch.no_grad():
        wanted = teacher.model(tokens[None])[0]

    def of_rows(found: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher.lm_head(wanted).log_softmax(-1)
        return kl_div(student.lm_head(found).log_softmax(-1), target, log_target=True, reduction="sum")

    return mean_over_tokens(of_rows, student.model(tokens[None])[0], wanted)


def _student(
    rounded: Checkpoint, read: Read, device: torch.device | str
) -> tuple[Transformer, dict[str, nn.Parameter]]:
    """The rounded model, and what it learns by the name of the tensor that is changed."""
    with torch.device("meta"):
        model = Transformer(rounded.config).requires_grad_(False)
    model.checkpoint_activations()
    table = _Table("model.embed_tokens", rounded)
    for name, module in list(model.named_modules()):
        new: nn.Module
        if name.endswith("norm"):
            new = _GrownNorm(module, name, rounded)
        elif name == "model.embed_tokens":
            new = table
        elif name == "lm_head":
            new = table.as_head() if rounded.config.tied_embeddings else _Table(name, rounded)
        elif name.endswith("_proj"):
            _, _, index, part = name.split(".", 3)
            new = _Scaled(*read(int(index), part))
            if name.endswith(("o_proj", "down_proj")):
                new = nn.Sequential(Rounded(), new)
        else:
            continue
        model.set_submodule(name, new)
    model.to(device)
    growths = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            growths[name.removesuffix(".growth").removesuffix(".1") + ".weight"] = parameter
    return model, growths


class _Scaled(nn.Module):
    """A linear layer of integers whose scales grow by a share that is learned."""

    def __init__(self, q: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.columns = q.shape[1]
        left = -self.columns % GROUP
        self.q: Tensor
        self.scales: Tensor
        self.register_buffer("q", nn.functional.pad(q, (0, left)) if left else q)
        self.register_buffer("scales", scales)
        self.growth = nn.Parameter(torch.zeros_like(scales))

    def forward(self, x: Tensor) -> Tensor:
        scales = self.scales * (1 + self.growth)
        weight = torch.unflatten(self.q.float(), 1, (-1, GROUP)) * scales[..., None]
        return linear(x, weight.flatten(1)[:, : self.columns])


class _GrownNorm(nn.Module):
    """A norm whose output grows by a share that is learned, and is then rounded to 8 bits."""

    def __init__(self, norm: nn.Module, name: str, source: Checkpoint) -> None:
        super().__init__()
        state = {
            part: torch.from_numpy(source.tensor(f"{name}.{part}").to_float32()) for part in norm.state_dict()
        }
        norm.load_state_dict(state, assign=True)
        self.norm = norm.requires_grad_(False)
        self.growth = nn.Parameter(torch.zeros(source.config.dim))
        self.round = Rounded()

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = self.round(self.norm(x) * (1 + self.growth))
        return rounded


class _Table(nn.Module):
    """An embedding or a head of 8 bits with a scale a row."""

    def __init__(self, name: str, source: Checkpoint) -> None:
        super().__init__()
        q, scales = round_rows(torch.from_numpy(source.tensor(f"{name}.weight").to_float32()))
        self.q: Tensor
        self.scales: Tensor
        self.register_buffer("q", q.to(torch.int8))
        self.register_buffer("scales", scales)
        self.is_head = name == "lm_head"

    def as_head(self) -> _Table:
        """The same table as a head."""
        head = copy(self)
        head.is_head = True
        return head

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.q, self.scales) if self.is_head else self.q[x] * self.scales[x]


def _state(adam: torch.optim.Adam, growths: Mapping[str, nn.Parameter]) -> State:
    state = {}
    for name, growth in growths.items():
        state[name] = growth.detach()
        state |= {f"{name}.{key}": adam.state[growth][key] for key in _MOMENTS}
    return state


def _restore(adam: torch.optim.Adam, growths: Mapping[str, nn.Parameter], state: State, done: int) -> None:
    for name, growth in growths.items():
        growth.data.copy_(state[name])
        moments = {key: state[f"{name}.{key}"].clone().to(growth.device) for key in _MOMENTS}
        adam.state[growth] = {"step": torch.tensor(float(done)), **moments}


_MOMENTS = ("exp_avg", "exp_avg_sq")
