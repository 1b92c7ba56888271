"""Perplexity, divergence and agreement against torch on transformers' logits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import save_tiny

from puna.errors import ConfigError
from puna.evaluate import compare
from puna.evaluate.compare import agreement_of, compare_loaded, compare_on
from puna.llama import load

TOKENS = np.random.default_rng(3).integers(0, 256, 150).tolist()


def test_every_figure_equals_torchs(tmp_path: Path) -> None:
    models = [save_tiny(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    with load(str(tmp_path / "0"), format="f32") as a, load(str(tmp_path / "1"), format="f32") as b:
        ours = compare_on(a.engine, b.engine, TOKENS, window=64)
    pieces = [TOKENS[:64], TOKENS[64:128], TOKENS[128:]]
    logs = []
    for model in models:
        with torch.no_grad():
            logits = [model(torch.tensor([piece])).logits[0, :-1].double() for piece in pieces]
        logs.append(torch.cat(logits).log_softmax(-1))
    following = torch.tensor([token for piece in pieces for token in piece[1:]])
    losses = [torch.nn.functional.nll_loss(log, following).item() for log in logs]
    divergence = torch.nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction="none").sum(-1)
    assert ours.tokens == 147
    assert ours.reference_perplexity == pytest.approx(math.exp(losses[0]), rel=1e-4)
    assert ours.perplexity == pytest.approx(math.exp(losses[1]), rel=1e-4)
    assert ours.mean_kl == pytest.approx(divergence.mean().item(), rel=1e-4)
    assert ours.kl_error == pytest.approx(divergence.std(correction=0).item() / 147**0.5, rel=1e-3)
    assert ours.top1_agreement == (logs[0].argmax(-1) == logs[1].argmax(-1)).double().mean().item()


def test_a_model_agrees_with_itself(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    with load(str(tmp_path)) as llama:
        same = compare_on(llama.engine, llama.engine, TOKENS)
    assert (same.mean_kl, same.kl_error, same.top1_agreement) == (0, 0, 1)
    assert same.perplexity == same.reference_perplexity


def test_rows_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0, 3, (2, 150, 20)).astype(np.float32)
    pieces = [(a, b, random.integers(0, 20, 150).tolist())]
    few = agreement_of(pieces)
    rows: list[int] = []
    whole = compare.log_probabilities

    def counted(logits: np.ndarray[Any, Any]) -> Any:
        rows.append(len(logits))
        return whole(logits)

    monkeypatch.setattr(compare, "log_probabilities", counted)
    assert agreement_of(pieces) == few
    assert rows == [64, 64, 64, 64, 22, 22]
    monkeypatch.setattr(compare, "_ROWS", 1000)
    assert agreement_of(pieces) == few


def test_a_broken_models_perplexity_is_infinite() -> None:
    right, wrong = np.array([[1000.0, 0.0]], np.float32), np.array([[0.0, 1000.0]], np.float32)
    found = agreement_of([(right, wrong, [0])])
    assert (found.reference_perplexity, found.perplexity) == (1, math.inf)


def test_other_vocabularies_and_too_little_text_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "a")
    save_tiny(tmp_path / "b", vocab_size=300)
    with load(str(tmp_path / "a")) as a, load(str(tmp_path / "b")) as b:
        with pytest.raises(ConfigError, match="one vocabulary, got 260 and 300 tokens"):
            compare_on(a.engine, b.engine, TOKENS)
        with pytest.raises(ConfigError, match="at least 2 tokens, got 512 and 1"):
            compare_on(a.engine, a.engine, [1])
        for n in (-1, 0, 1):
            with pytest.raises(ConfigError, match=f"`max_tokens` must be at least 2, got {n}"):
                compare_loaded(a, a, "Llamas hum.", max_tokens=n, window=64)
