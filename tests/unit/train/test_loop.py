"""The loop: AdamW and its schedule against torch's own, and going on after a break to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny

from puna.errors import CheckpointError, ConfigError, StoreError
from puna.nn.checkpoint import load
from puna.nn.model import Transformer
from puna.train.loop import Step, train
from puna.train.losses import cross_entropy
from puna.train.rows import Rows, cut_into_rows
from puna.train.settings import TrainSettings
from puna.train.state import RunFolder

TEXT = list(" ".join(f"Llama number {n} hums at {n * n % 97} hertz." for n in range(60)).encode())
SETTINGS = {"steps": 8, "batch": 2, "accumulate": 3, "learning_rate": 1e-2, "warmup": 2, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, tie_word_embeddings=True)
    return folder


def run(
    model: Transformer,
    folder: Path,
    rows: Rows | None = None,
    stop_after: int | None = None,
    **changes: object,
) -> list[Step]:
    steps: list[Step] = []

    def progress(step: Step) -> None:
        steps.append(step)
        if step.step == stop_after:
            raise KeyboardInterrupt

    run_folder = RunFolder(folder)
    run_folder.begin({"test": 1})
    train(
        dict(model.named_parameters()),
        cut_into_rows(TEXT, 40) if rows is None else rows,
        lambda batch: cross_entropy(model, batch),
        TrainSettings(**{**SETTINGS, **changes}),
        run_folder,
        progress=progress,
    )
    return steps


def test_a_broken_off_run_goes_on_to_the_bit(tiny: Path, tmp_path: Path) -> None:
    whole = load(str(tiny))
    steps = run(whole, tmp_path / "whole")
    first, second = load(str(tiny)), load(str(tiny))
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "broken", stop_after=4, save_every_s=0)
    rest = run(second, tmp_path / "broken", save_every_s=0)
    # The state was saved after step 3; the fourth was logged and is made again.
    assert [(s.step, s.loss, s.gradient_norm) for s in rest] == [
        (s.step, s.loss, s.gradient_norm) for s in steps[4:]
    ]
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    log = [json.loads(line) for line in (tmp_path / "broken" / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in log] == [(s.step, s.loss) for s in steps]
    assert run(load(str(tiny)), tmp_path / "broken") == []  # all done: the weights come back, no step is made


@pytest.mark.parametrize("damage", ["{", "7", "{}", '{"step": "x"}', "\udcff"])
def test_a_damaged_log_is_told_of_and_kept(tiny: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    run(load(str(tiny)), folder, save_every_s=0)
    log = folder / "log.jsonl"
    damaged = log.read_bytes() + damage.encode(errors="surrogateescape") + b"\n"
    log.write_bytes(damaged)
    with pytest.raises(StoreError, match="damaged; move it away"):
        run(load(str(tiny)), folder)
    assert log.read_bytes() == damaged
    log.rename(tmp_path / "elsewhere")
    assert run(load(str(tiny)), folder) == []


def test_steps_are_those_of_torch_on_all_rows_at_once(tiny: Path, tmp_path: Path) -> None:
    """Accumulation, mean over tokens, clipping and schedule, against a plain loop in float64."""
    ours, theirs = load(str(tiny), dtype=torch.float64), load(str(tiny), dtype=torch.float64)
    rows = cut_into_rows(TEXT, 40)
    rows.targets[0, 5:] = -100  # rows count by their tokens, not all the same
    n = len(rows)
    steps = run(ours, tmp_path, rows, batch=4, accumulate=n // 4 + 1, steps=3, clip=0.5, warmup=1)
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    plain = [p for p in theirs.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    size = 4 * (n // 4 + 1)
    for k, step in enumerate(steps):
        order = []
        for epoch in range(size * (k + 1) // n + 1):
            order += torch.randperm(n, generator=torch.Generator().manual_seed(epoch)).tolist()
        batch = rows.batch(order[k * size : (k + 1) * size])
        loss = torch.nn.functional.cross_entropy(theirs(batch.tokens).flatten(0, 1), batch.targets.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        for group in optimizer.param_groups:
            share = 0.1 + 0.9 * (1 + math.cos(math.pi * (k - 1) / 2)) / 2 if k else 1
            group["lr"] = 1e-2 * share
        optimizer.step()
        optimizer.zero_grad()
        assert (step.loss, step.gradient_norm) == pytest.approx((loss.item(), norm.item()), rel=1e-6)
        assert step.learning_rate == pytest.approx(1e-2 * share)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_it_learns(tiny: Path, tmp_path: Path) -> None:
    steps = run(load(str(tiny)), tmp_path, steps=25, accumulate=1, batch=8)
    assert steps[-1].loss < steps[0].loss - 2


def test_each_row_comes_once_an_epoch(tiny: Path, tmp_path: Path) -> None:
    class Seen(Rows):
        def batch(self, rows: list[int]) -> object:  # type: ignore[override]
            seen.extend(rows)
            return super().batch(rows)

    seen: list[int] = []
    rows = cut_into_rows(TEXT, 40)
    run(load(str(tiny)), tmp_path, Seen(rows.tokens, rows.targets), steps=2, batch=len(rows), accumulate=1)
    n = len(rows)
    assert sorted(seen[:n]) == sorted(seen[n:]) == list(range(n))
    assert seen[:n] != seen[n:]


def test_held_out_rows_are_looked_at_and_the_step_is_told(tiny: Path, tmp_path: Path) -> None:
    model, rows = load(str(tiny)), cut_into_rows(TEXT, 40)
    kept, held_out = rows.split(5)
    folder, seen = RunFolder(tmp_path), []
    folder.begin({})
    loss = lambda batch: cross_entropy(model, batch)  # noqa: E731
    train(
        dict(model.named_parameters()),
        kept,
        loss,
        TrainSettings(steps=5, batch=3, evaluate_every=2),
        folder,
        held_out=held_out,
        progress=seen.append,
    )
    assert [step.held_out is not None for step in seen] == [False, True, False, True, True]
    with torch.no_grad():
        batch = held_out.batch([0, 1, 2, 3, 4])
        mean = torch.nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
    assert seen[-1].held_out == pytest.approx(mean.item(), rel=1e-5)


def test_wrong_things_are_refused(tiny: Path, tmp_path: Path) -> None:
    for wrong in (
        {"steps": 0},
        {"batch": 0},
        {"warmup": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"clip": 0.0},
        {"final_rate": 2.0},
        {"weight_decay": -1.0},
        {"seed": -1},
        {"seed": 1 << 43},
    ):
        with pytest.raises(ConfigError, match=f"`{next(iter(wrong))}` must be"):
            TrainSettings(**{"steps": 1, **wrong})
    with pytest.raises(ConfigError, match="no rows"):
        run(load(str(tiny)), tmp_path / "none", Rows(torch.zeros((0, 4)), torch.zeros((0, 4))))
    model = load(str(tiny))
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(ConfigError, match="the loss of step 0 is nan; try a lower learning rate"):
        run(model, tmp_path / "nan")


def test_a_folder_of_another_run_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    run(load(str(tiny)), tmp_path)
    with pytest.raises(ConfigError, match="an unfinished run with another seed, test;"):
        RunFolder(tmp_path).begin({"seed": 2})
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        run(load(str(tiny)), tmp_path)
