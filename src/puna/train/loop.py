"""The loop: batches in, steps of AdamW, a log, and a state from which a broken run goes on to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from puna.errors import ConfigError
from puna.train.settings import TrainSettings
from puna.train.state import RunFolder

__all__ = ["Data", "Loss", "Progress", "Step", "mean_loss", "train"]

BatchT = TypeVar("BatchT")
Contra = TypeVar("Contra", contravariant=True)
Co = TypeVar("Co", covariant=True)


class Data(Protocol[Co]):
    """Rows that can be had in any order."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def batch(self, rows: list[int]) -> Co:
        """The named rows together."""
        ...


class Loss(Protocol[Contra]):
    """What is to become small."""

    def __call__(self, batch: Contra, /) -> tuple[Tensor, int]:
        """The loss summed over what counts in the batch, and the number of what counts."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What a step did.

    Attributes:
        step: its number, from 0.
        loss: mean over all that counted in it, before the step.
        learning_rate: what it used.
        gradient_norm: before clipping.
        count: what counted in it: tokens, or pairs.
        held_out: loss on the rows held out, after the step; None where nobody looked.
        seconds: that it took, without that look.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    count: int
    held_out: float | None
    seconds: float


Progress = Callable[[Step], None]
"""Told of every step."""


def train(
    parameters: Mapping[str, nn.Parameter],
    data: Data[BatchT],
    loss: Loss[BatchT],
    settings: TrainSettings,
    folder: RunFolder,
    *,
    held_out: Data[BatchT] | None = None,
    before_step: Callable[[int], None] | None = None,
    progress: Progress | None = None,
    saved: Callable[[int], None] | None = None,
) -> None:
    """Train parameters in place, from the state in the folder on where there is one.

    A run that broke off and goes on gives the very bits of one that did not: which rows a step has
    depends on its number and the seed alone, and the state has weights and both of AdamW's memories.

    Args:
        parameters: what changes, by name.
        data: the rows to learn from.
        loss: see `Loss`; gradients are those of the mean over a whole step.
        settings: how.
        folder: where state and log go; `RunFolder.begin` was called.
        held_out: rows to look at without learning from them.
        before_step: told of each step before it; may change how the model computes.
        progress: told of each step after it.
        saved: told how many steps are done, after the state was saved.

    Raises:
        ConfigError: there are no rows, or the loss is no number any more.
        CheckpointError: the state in the folder is damaged.
        StoreError: the folder cannot be written.
    """
    if not len(data):
        raise ConfigError("there are no rows to train on; give more data, or shorter rows")
    optimizer = _adamw(parameters, settings)
    state = _state_of(parameters, optimizer)
    with torch.no_grad():
        about = folder.restore(state)
    first = 0 if about is None else int(about["done"])
    folder.cut_log(first)
    last_saved = time.monotonic()
    for step in range(first, settings.steps):
        if before_step is not None:
            before_step(step)
        done = _step(step, parameters, optimizer, data, loss, settings)
        look = settings.evaluate_every and (step + 1) % settings.evaluate_every == 0
        if held_out is not None and len(held_out) and (look or step + 1 == settings.steps):
            done = _with_held_out(done, mean_loss(held_out, loss, settings.batch))
        folder.add_to_log({name: getattr(done, name) for name in Step.__dataclass_fields__})
        if progress is not None:
            progress(done)
        if step + 1 == settings.steps or time.monotonic() - last_saved >= settings.save_every_s:
            folder.save(state, {"done": step + 1})
            last_saved = time.monotonic()
            if saved is not None:
                saved(step + 1)


@torch.no_grad()
def mean_loss(data: Data[BatchT], loss: Loss[BatchT], batch: int) -> float:
    """Mean loss over all rows, in batches of so many."""
    total, count = 0.0, 0
    for start in range(0, len(data), batch):
        part, n = loss(data.batch(list(range(start, min(start + batch, len(data))))))
        total, count = total + part.item(), count + n
    return total / max(count, 1)


def _step(
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    data: Data[BatchT],
    loss: Loss[BatchT],
    settings: TrainSettings,
) -> Step:
    started_s = time.perf_counter()
    total, count = 0.0, 0
    for rows in _rows_of(step, len(data), settings):
        part, n = loss(data.batch(rows))
        part.backward()  # type: ignore[no-untyped-call]
        total, count = total + part.item(), count + n
    if not abs(total) < float("inf"):
        raise ConfigError(f"the loss of step {step} is {total}; try a lower learning rate, or a warm-up")
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    torch._foreach_div_(gradients, float(max(count, 1)))
    norm = nn.utils.clip_grad_norm_(parameters.values(), settings.clip).item()
    rate = settings.rate_at(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return Step(
        step=step,
        loss=total / max(count, 1),
        learning_rate=rate,
        gradient_norm=norm,
        count=count,
        held_out=None,
        seconds=time.perf_counter() - started_s,
    )


def _with_held_out(step: Step, loss: float) -> Step:
    values = {name: getattr(step, name) for name in Step.__dataclass_fields__}
    return Step(**{**values, "held_out": loss})


def _rows_of(step: int, n_rows: int, settings: TrainSettings) -> Iterable[list[int]]:
    """Rows of each forward pass of a step: every row once an epoch, in another order each."""
    size = settings.batch * settings.accumulate
    order: dict[int, list[int]] = {}
    rows = []
    for place in range(step * size, (step + 1) * size):
        epoch = place // n_rows
        if epoch not in order:
            generator = torch.Generator().manual_seed((settings.seed << 20) + epoch)
            order[epoch] = torch.randperm(n_rows, generator=generator).tolist()
        rows.append(order[epoch][place % n_rows])
    return [rows[start : start + settings.batch] for start in range(0, size, settings.batch)]


def _adamw(parameters: Mapping[str, nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, settings.learning_rate, betas=settings.betas, fused=True)


def _state_of(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Weights and AdamW's memories by name; the memories are made here, as zeros, where AdamW would."""
    state: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        memory = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        optimizer.state[parameter] = memory
        state[f"weight.{name}"] = parameter
        state |= {f"{key}.{name}": value for key, value in memory.items()}
    return state
