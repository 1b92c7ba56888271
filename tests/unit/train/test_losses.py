"""Losses against plain NumPy in float64, written from the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.tiny import save_tiny

from puna.nn.checkpoint import load
from puna.nn.model import Transformer
from puna.train.encode import Example
from puna.train.losses import cross_entropy, distillation, preference_loss
from puna.train.pairs import Pairs, dpo_loss
from puna.train.rows import NOT_COUNTED, Batch


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Transformer]:
    """Two different ones, in float64."""
    made = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("tiny")
        save_tiny(folder, seed=seed, tie_word_embeddings=bool(seed))
        made.append(load(str(folder), dtype=torch.float64))
    return made


def log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def predictions(model: Transformer, tokens: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return log_softmax(model(tokens).numpy())


def batch_of(n: int, length: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens, targets = (torch.randint(0, 260, (n, length), generator=generator) for _ in range(2))
    targets[torch.rand((n, length), generator=generator) < 0.4] = NOT_COUNTED
    return Batch(tokens, targets)


def test_cross_entropy_counts_what_counts(models: list[Transformer]) -> None:
    batch = batch_of(3, 20)
    loss, count = cross_entropy(models[0], batch)
    found, targets = predictions(models[0], batch.tokens), batch.targets.numpy()
    at = np.argwhere(targets != NOT_COUNTED)
    expected = -sum(found[i, j, targets[i, j]] for i, j in at)
    assert (loss.item(), count) == (pytest.approx(expected, rel=1e-12), len(at))


def test_distillation_is_the_divergence_from_the_teacher(models: list[Transformer]) -> None:
    batch = batch_of(3, 20)
    student, teacher = models
    loss, count = distillation(student, teacher, batch)
    p, q = predictions(teacher, batch.tokens), predictions(student, batch.tokens)
    expected = (np.exp(p) * (p - q)).sum(-1)[batch.targets.numpy() != NOT_COUNTED]
    assert (loss.item(), count) == (pytest.approx(expected.sum(), rel=1e-12), len(expected))
    assert distillation(teacher, teacher, batch)[0].item() == pytest.approx(0, abs=1e-9)
    student.zero_grad()
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.lm_head.weight.grad.abs().sum() > 0


def pair(seed: int) -> tuple[Example, Example]:
    """A common prompt of 4 tokens and two answers of other lengths."""
    generator = np.random.default_rng(seed)
    prompt = generator.integers(0, 260, 4).tolist()
    answers = [generator.integers(0, 260, n).tolist() for n in generator.integers(1, 9, 2)]
    return tuple(Example(prompt + a, [False] * 4 + [True] * len(a)) for a in answers)  # type: ignore[return-value]


def total(model: Transformer, example: Example) -> float:
    """Log-probability of an answer, its text alone in the batch."""
    found = predictions(model, torch.tensor([example.ids]))[0]
    return float(sum(found[i - 1, example.ids[i]] for i in range(4, len(example.ids))))


def test_dpo_is_its_formula(models: list[Transformer]) -> None:
    start, model = models
    given = [pair(seed) for seed in range(5)]
    pairs = Pairs(given, start, batch=2)
    rows, beta = [3, 0, 4], 0.3
    loss, count = dpo_loss(model, pairs.batch(rows), beta)
    expected = 0.0
    for row in rows:
        (chosen, rejected) = ((total(model, e) - total(start, e)) for e in given[row])
        expected += np.log1p(np.exp(-beta * (chosen - rejected)))
    assert count == 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # log-probabilities are float32


def test_dpo_begins_at_log_two_and_raises_the_chosen(models: list[Transformer]) -> None:
    start = models[0]
    pairs = Pairs([pair(7)], start, batch=1)
    start.zero_grad()
    loss, _ = dpo_loss(start, pairs.batch([0]), 0.1)
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    loss.backward()
    before = [total(start, example) for example in pair(7)]
    saved = [p.detach().clone() for p in start.parameters()]
    with torch.no_grad():
        for parameter in start.parameters():
            parameter -= 1e-3 * parameter.grad
        after = [total(start, example) for example in pair(7)]
        for parameter, value in zip(start.parameters(), saved, strict=True):
            parameter.copy_(value)
    assert after[0] - before[0] > after[1] - before[1]


def test_preference_loss_is_stable_far_out() -> None:
    far = torch.tensor([1e4, -1e4])
    assert preference_loss(far, -far, 1.0).item() == pytest.approx(2e4)
