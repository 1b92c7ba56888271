"""A draft model changes the number of steps and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import save_tiny
from tests.unit.engine.callers import Caller

import puna
from puna.engine.draft import Draft
from puna.engine.native import NativeEngine
from puna.errors import ConfigError
from puna.models.open import open_checkpoint
from puna.models.packed import PackedModel, pack_checkpoint
from puna.tokens import Tokenizer


class Models:
    """A model, drafts of several quality, and the tokenizer of all."""

    def __init__(self, folder: Path) -> None:
        save_tiny(folder / "model")
        save_tiny(folder / "other", seed=1, num_hidden_layers=1, max_position_embeddings=64)
        save_tiny(folder / "more", vocab_size=264)
        model, other, more = (open_checkpoint(folder / name) for name in ("model", "other", "more"))
        self.tokenizer = Tokenizer(model.vocabulary())
        self.model = pack_checkpoint(model, "int8")
        self.drafts = {"twin": self.model, "near": pack_checkpoint(model, "int4")}
        self.drafts["far"] = pack_checkpoint(other, "int4")
        self.more = pack_checkpoint(more, "int4")

    def engine(self, draft: PackedModel | None, **options: Any) -> NativeEngine:
        return NativeEngine(self.model, self.tokenizer, n_threads=2, draft=draft, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plain(models: Models) -> Iterator[NativeEngine]:
    engine = models.engine(None, speculation="off")
    yield engine
    engine.close()


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "seed": 4, "top_p": 0.9, "logprobs": 2},
    {"temperature": 0.7, "seed": 5, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
    {"logit_bias": {7: 2.0}, "max_tokens": 2},
]


def prompts() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, n).tolist() for n in (1, 15, 16, 17, 60, 300)]


@pytest.mark.parametrize("name", ["twin", "near", "far"])
def test_every_answer_is_the_one_without_a_draft(models: Models, plain: NativeEngine, name: str) -> None:
    guessing = models.engine(models.drafts[name])
    requests = [(prompt, options) for options in SETTINGS for prompt in prompts()]
    expected = [Caller(plain, prompt, **options).finish()[0][:4] for prompt, options in requests]
    for (prompt, options), answer in zip(requests, expected, strict=True):
        found, usage = Caller(guessing, prompt, **options).finish()
        assert found[:4] == answer
        if name == "twin":
            # The same model with the same draws is never wrong, at any temperature.
            assert usage.accepted_tokens == usage.proposed_tokens
            assert usage.accepted_tokens > 0 or usage.completion_tokens <= 2
        if name == "far" and len(prompt) > 64:
            assert usage.proposed_tokens == 0, "the draft model has 64 positions"
    together = [Caller(guessing, prompt, **options) for prompt, options in requests]
    assert [caller.finish()[0][:4] for caller in together] == expected
    guessing.close()


def test_blocks_of_an_earlier_answer_are_computed_once(models: Models) -> None:
    guessing = models.engine(models.drafts["twin"])
    draft = guessing._scheduler._proposer
    assert isinstance(draft, Draft)
    text = prompts()[-1]
    answer = Caller(guessing, text).finish()[0][1]
    Caller(guessing, [1], max_tokens=1).finish()  # the first request is forgotten by now
    seen: list[int] = []
    left_over = draft._n_left_over
    draft._n_left_over = lambda sequence: seen.append(left_over(sequence)) or seen[-1]  # type: ignore[method-assign]
    _, usage = Caller(guessing, [*text, *answer, 9]).finish()
    assert len(seen) == 1
    assert seen[0] >= 304, "300 tokens of the prompt, and the answer up to its last guess"
    assert usage.accepted_tokens == usage.proposed_tokens > 0
    guessing.close()


def test_a_draft_that_does_not_go_with_the_model(models: Models) -> None:
    with pytest.raises(ConfigError, match="needs the vocabulary of the model, 260 tokens, and has 264"):
        models.engine(models.more)
    with pytest.raises(ConfigError, match="`speculation` is 'off'"):
        models.engine(models.model, speculation="off")


def test_a_draft_that_fails_takes_down_what_runs_and_not_the_engine(models: Models) -> None:
    guessing = models.engine(models.drafts["twin"])
    draft = guessing._scheduler._proposer
    assert isinstance(draft, Draft)
    runner, draft._runner = draft._runner, None  # type: ignore[assignment]
    error = Caller(guessing, prompts()[1]).error()
    assert "lost track" in str(error)
    draft._runner = runner
    assert Caller(guessing, prompts()[1]).finish()[0][3] == "length"
    guessing.close()


def test_load_with_a_draft(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    save_tiny(tmp_path / "draft", seed=1, num_hidden_layers=1)
    name, draft = str(tmp_path / "model"), str(tmp_path / "draft")
    with puna.load(name) as alone, puna.load(name, draft=draft) as assisted:
        expected = alone.generate("hum hum hum", max_tokens=30, seed=1, temperature=1.0)
        found = assisted.generate("hum hum hum", max_tokens=30, seed=1, temperature=1.0)
        assert (found.text, found.tokens) == (expected.text, expected.tokens)
        assert found.usage.proposed_tokens > 0
    file = tmp_path / "draft" / "tokenizer.json"
    file.write_text(file.read_text().replace("<|user|>", "<|person|>"))
    with pytest.raises(ConfigError, match="draft model draft needs the vocabulary of 260 tokens"):
        puna.load(name, draft=draft)
