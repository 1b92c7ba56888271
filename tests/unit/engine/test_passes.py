"""Embeddings and scores: a slice a step, beside the answers, the same numbers whatever else runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
from tests.unit.engine.callers import Caller

from puna.engine.native import NativeEngine
from puna.engine.pace import Pace
from puna.engine.passes import Logits
from puna.errors import EngineError
from puna.models.packed import PackedModel
from puna.tokens import Tokenizer


def text(n: int) -> list[int]:
    return np.random.default_rng(n).integers(0, 256, n).tolist()


class Watched:
    """A runner that notes what it is asked for.

    Attributes:
        calls: the method, and the number of output rows.
        before: is called ahead of each pass's slice.
    """

    def __init__(self, engine: NativeEngine) -> None:
        self._runner: Any = engine._runner
        self.calls: list[tuple[str, int]] = []
        self.before: Callable[[], object] = lambda: None
        engine._runner = self  # type: ignore[assignment]

    def sample(self, *arguments: Any) -> Any:
        self.calls.append(("sample", len(arguments[3])))
        return self._runner.sample(*arguments)

    def hidden(self, *arguments: Any) -> Any:
        self.calls.append(("hidden", len(arguments[3])))
        self.before()
        return self._runner.hidden(*arguments)

    def logits(self, *arguments: Any) -> Any:
        self.calls.append(("logits", len(arguments[3])))
        self.before()
        return self._runner.logits(*arguments)


def log_probabilities(engine: NativeEngine, tokens: list[int]) -> np.ndarray[Any, Any]:
    """[tokens, vocabulary], in float64."""
    logits = np.asarray(engine.logits(tokens), np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("n_tokens", [1, 2, 63, 64, 65, 66, 257])
def test_scores_are_log_probabilities_of_what_comes_next(engine: NativeEngine, n_tokens: int) -> None:
    """Whatever is left for the last slice of a pass."""
    tokens = text(n_tokens)
    expected = log_probabilities(engine, tokens)
    scores = engine.score(tokens, n_top=3).result()
    assert [score.token for score in scores] == tokens[1:]
    for row, score in zip(expected[:-1], scores, strict=True):
        assert score.logprob == pytest.approx(row[score.token], abs=1e-5)
        best = np.argsort(-row, kind="stable")[:3]
        assert [token for token, _ in score.top] == best.tolist()
        assert [logprob for _, logprob in score.top] == pytest.approx(row[best].tolist(), abs=1e-5)


def test_a_token_that_is_likeliest_has_the_number_of_the_first_of_the_top(engine: NativeEngine) -> None:
    tokens, _ = Caller(engine, text(20)).finish()
    answer = tokens[1]
    for score in engine.score(text(20) + answer, n_top=1).result()[19:]:
        assert score.top == ((score.token, score.logprob),)


def test_neighbours_change_no_bit_of_a_pass(engine: NativeEngine) -> None:
    texts = [text(n) for n in (1, 16, 100, 300, 600)]
    embeddings = [engine.embed(tokens).result() for tokens in texts]
    scores = [engine.score(tokens, 2).result() for tokens in texts]
    callers = [Caller(engine, tokens, max_tokens=60) for tokens in texts]
    both = [(engine.embed(tokens), engine.score(tokens, 2)) for tokens in texts]
    assert all(np.array_equal(e.result(), known) for (e, _), known in zip(both, embeddings, strict=True))
    assert [s.result() for _, s in both] == scores
    for caller in callers:
        caller.finish()


@pytest.mark.parametrize(("kind", "n_slices", "n_rows"), [("embed", 3, 256), ("score", 10, 64)])
def test_answers_go_on_between_the_slices_of_passes(
    engine: NativeEngine, kind: str, n_slices: int, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_pace", Pace(math.inf))
    runner, may_begin = Watched(engine), threading.Event()
    runner.before = may_begin.wait
    futures = [getattr(engine, kind)(text(600)) for _ in range(2)]
    caller = Caller(engine, text(5), max_tokens=900)
    may_begin.set()
    for future in futures:
        future.result()
    engine.cancel(caller.request)
    caller.events.get(timeout=60)
    slices = [i for i, (name, _) in enumerate(runner.calls) if name != "sample"]
    # The last ones are short, and go together where both texts began together.
    assert 2 * n_slices - 1 <= len(slices) <= 2 * n_slices
    assert max(runner.calls[i][1] for i in slices) <= n_rows
    assert all(runner.calls[i - 1][0] == "sample" for i in slices[1:])


def test_slices_are_shorter_deep_in_a_text(engine: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_pace", Pace(math.inf))
    expected = engine.embed(text(600)).result()
    monkeypatch.setattr(engine, "_pace", Pace(100))
    runner = Watched(engine)
    assert np.array_equal(engine.embed(text(600)).result(), expected)
    rows = [n for _, n in runner.calls]
    assert rows == [256, 64, 64, 64, 64, 64, 24]
    assert sum(rows) == 600


def test_short_texts_go_together_and_change_no_bit(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_pace", Pace(math.inf))
    runner, may_begin = Watched(engine), threading.Event()
    runner.before = may_begin.wait
    lengths = [5, 300, *range(1, 60)]  # 2,075 tokens
    embeddings = [engine.embed(text(n)) for n in lengths]
    scores = [engine.score(text(n), 2) for n in lengths]
    may_begin.set()
    embedded, scored = [each.result() for each in embeddings], [each.result() for each in scores]
    assert sum(name == "hidden" for name, _ in runner.calls) <= 14  # where 62 slices took as many
    assert max(n for name, n in runner.calls if name == "logits") <= 64
    for n, vector, score in zip(lengths, embedded, scored, strict=True):
        assert np.array_equal(vector, engine.embed(text(n)).result())
        assert score == engine.score(text(n), 2).result()


def test_a_short_text_does_not_wait_for_a_long_one(engine: NativeEngine) -> None:
    runner, may_begin = Watched(engine), threading.Event()
    runner.before = may_begin.wait
    done: list[str] = []
    long, short = engine.score(text(1000)), engine.score(text(70))
    long.add_done_callback(lambda _: done.append("long"))
    short.add_done_callback(lambda _: done.append("short"))
    may_begin.set()
    engine.score(text(1000)).result()
    assert done == ["short", "long"]


def test_a_pass_that_nobody_waits_for_ends_at_the_next_step(engine: NativeEngine) -> None:
    free = engine.free_cache_tokens
    runner = Watched(engine)
    future = engine.embed(text(1000))
    runner.before = future.cancel
    with pytest.raises(CancelledError):
        future.result()
    assert len(engine.embed(text(3)).result()) == 48
    assert len([n for name, n in runner.calls if name == "hidden"]) <= 2
    assert engine.free_cache_tokens == free


def test_a_pass_waits_for_room(tiny: tuple[PackedModel, Tokenizer]) -> None:
    engine = NativeEngine(*tiny, context_tokens=128, cache_tokens=128)
    alone = engine.embed(text(60)).result()
    caller = Caller(engine, text(40), max_tokens=80)
    caller.events.get(timeout=60)
    futures = [engine.embed(text(60)) for _ in range(3)]
    assert all(np.array_equal(future.result(), alone) for future in futures)
    caller.finish()
    engine.close()


def test_what_fails_fails_alone(engine: NativeEngine) -> None:
    free = engine.free_cache_tokens
    runner = Watched(engine)

    def fail() -> None:
        runner.before = lambda: None
        raise MemoryError("no room")

    runner.before = fail
    first, second = engine.embed(text(600)), engine.embed(text(3))
    with pytest.raises(MemoryError, match="no room"):
        first.result()
    assert len(second.result()) == 48
    assert engine.free_cache_tokens == free


def test_a_result_that_finds_no_memory_is_an_error(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Logits) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Logits, "result", fail)
    with pytest.raises(MemoryError, match="no room"):
        engine.logits(text(3))
    assert len(engine.embed(text(3)).result()) == 48


def test_closing_ends_passes(engine: NativeEngine) -> None:
    runner, may_begin = Watched(engine), threading.Event()
    runner.before = lambda: may_begin.wait() and engine.close()  # by the engine's own thread: no deadlock
    futures = [engine.score(text(600)) for _ in range(3)]
    may_begin.set()
    for future in futures:
        with pytest.raises(EngineError, match="closed"):
            future.result()


def test_a_first_token_has_no_score(engine: NativeEngine) -> None:
    assert engine.score([7]).result() == []
    assert engine.score([7, 8]).result() == engine.score([7, 8, 9]).result()[:1]
