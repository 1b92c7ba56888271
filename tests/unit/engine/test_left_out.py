"""Rows of a model that no token has: a padded embedding answers as the one without padding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import PADDED_ROWS, save_tiny, save_tiny_padded
from tests.unit.engine.callers import Caller

from puna import _native
from puna.constraints import Regex
from puna.engine.native import NativeEngine
from puna.engine.native_parts import new_cache, new_model
from puna.errors import ConfigError, NativeError
from puna.models.open import open_checkpoint
from puna.models.packed import PackedModel, pack_checkpoint
from puna.tokens import Tokenizer

N_TOKENS, N_ROWS = 260, PADDED_ROWS
SETTINGS: list[dict[str, Any]] = [
    {},
    {"logprobs": 5},
    {"temperature": 1.0, "top_p": 0.9, "logprobs": 3},
    {"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
    {"logit_bias": {7: 2.0}},
    {"ignore_eos": False, "constraint": Regex("[a-z ]{1,30}")},
    {"ignore_eos": False, "constraint": Regex("[a-z ]{1,30}"), "temperature": 1.0},
]

Tiny = tuple[PackedModel, Tokenizer]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Tiny]:
    """The same model with and without padding, by its rows."""
    folder = tmp_path_factory.mktemp("padded")
    save_tiny(folder / "plain")
    save_tiny_padded(folder / "padded")
    return {N_TOKENS: _packed(folder / "plain"), N_ROWS: _packed(folder / "padded")}


def _packed(folder: Path) -> Tiny:
    checkpoint = open_checkpoint(folder)
    return pack_checkpoint(checkpoint, "int8"), Tokenizer(checkpoint.vocabulary())


@pytest.fixture
def engine(padded: dict[int, Tiny]) -> Iterator[NativeEngine]:
    engine = NativeEngine(*padded[N_ROWS], n_threads=2)
    yield engine
    engine.close()


def prompts() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, n).tolist() for n in (1, 17, 60)]


def answers(engine: NativeEngine) -> tuple[list[Any], list[float]]:
    """What the requests of all settings give at once, log-probabilities apart."""
    callers = [Caller(engine, prompt, **options) for options in SETTINGS for prompt in prompts()]
    found, logprobs = [], []
    for caller in callers:
        text, tokens, entries, reason, _ = caller.finish()[0]
        found.append((text, tokens, [[token for token, _ in entry.top] for entry in entries], reason))
        logprobs += [x for entry in entries for x in (entry.logprob, *(logprob for _, logprob in entry.top))]
    return found, logprobs


@pytest.mark.parametrize("guesses", ["off", "lookup", "draft"])
def test_answers_are_those_without_padding(padded: dict[int, Tiny], guesses: str) -> None:
    found = []
    for model, tokenizer in padded.values():
        draft = model if guesses == "draft" else None
        speculation = "off" if guesses == "off" else "lookup"
        engine = NativeEngine(model, tokenizer, n_threads=2, speculation=speculation, draft=draft)
        found.append(answers(engine))
        if draft is not None:
            _, usage = Caller(engine, prompts()[1]).finish()
            assert usage.proposed_tokens == usage.accepted_tokens > 0, "the draft leaves out the same ids"
        engine.close()
    (expected, their_logprobs), (ours, logprobs) = found
    assert ours == expected
    assert logprobs == pytest.approx(their_logprobs, abs=1e-5)


def test_padding_would_win_and_has_no_part_in_scores(padded: dict[int, Tiny], engine: NativeEngine) -> None:
    text = prompts()[2]
    likeliest = engine.logits(text).argmax(-1)
    assert set(likeliest.tolist()) <= {N_TOKENS, N_ROWS - 1}, "as the model has them"
    plain = NativeEngine(*padded[N_TOKENS], n_threads=2)
    scores, expected = (each.score(text, 3).result() for each in (engine, plain))
    plain.close()
    assert [[token for token, _ in score.top] for score in scores] == [
        [token for token, _ in score.top] for score in expected
    ]
    assert [score.logprob for score in scores] == pytest.approx(
        [score.logprob for score in expected], abs=1e-5
    )


def test_prompts_with_such_an_id_are_refused(engine: NativeEngine) -> None:
    message = f"token {N_TOKENS} is not in the vocabulary: it is a row of the model without a text"
    prompt = [1, N_ROWS - 1, N_TOKENS, 2]
    for ask in (engine.check_prompt, engine.embed, engine.score, lambda prompt: Caller(engine, prompt)):
        with pytest.raises(ConfigError, match=message):
            ask(prompt)
    with pytest.raises(ConfigError, match=message):
        Caller(engine, [1, 2], logit_bias={N_TOKENS: 1.0})


def test_ids_that_no_row_has_are_refused(padded: dict[int, Tiny]) -> None:
    model = padded[N_ROWS][0]
    for token in (-1, N_ROWS):
        with pytest.raises(NativeError, match=f"ids that are left out must be under {N_ROWS}, got {token}"):
            _native.Runner(new_model(model), new_cache(model, 1, "f32"), 1, [token])
