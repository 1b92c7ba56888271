"""What fails beside the model takes down what there is and nothing that comes after; everybody is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.unit.engine.callers import Caller

from puna.engine.native import NativeEngine
from puna.errors import EngineError
from puna.models.packed import PackedModel
from puna.tokens import Tokenizer

PROMPT = np.random.default_rng(0).integers(0, 256, 40).tolist()
PLACES: dict[str, Callable[[NativeEngine], Any]] = {
    "advance": lambda engine: engine._scheduler,
    "remove": lambda engine: engine._scheduler,
    "remember": lambda engine: engine._scheduler.blocks,
    "release": lambda engine: engine._scheduler.blocks,
    "_admit": lambda engine: engine._passes,
}


def fail(*_: object, **__: object) -> Any:
    raise MemoryError("no memory")


@pytest.fixture(params=["alone", "with a draft"])
def engine(request: pytest.FixtureRequest, tiny: tuple[PackedModel, Tokenizer]) -> Iterator[NativeEngine]:
    engine = NativeEngine(*tiny, n_threads=2, draft=tiny[0] if request.param == "with a draft" else None)
    yield engine
    engine.close()


@pytest.mark.parametrize("name", PLACES)
def test_the_engine_goes_on_with_what_comes(engine: NativeEngine, name: str) -> None:
    n_free = engine.free_cache_tokens
    right = Caller(engine, PROMPT).finish()[0]
    embedded = engine.embed(PROMPT).result(60)

    setattr(PLACES[name](engine), name, fail)  # until the account is made anew
    callers = [Caller(engine, PROMPT) for _ in range(3)]
    passes = [engine.embed(PROMPT) for _ in range(2)]
    errors = [error for caller in callers if (error := caller.last().error)]
    errors += [error for each in passes if (error := each.exception(60))]
    assert errors
    assert all(isinstance(error, EngineError) for error in errors)
    assert all(isinstance(error.__cause__, MemoryError) for error in errors)
    lost = "the engine lost track of what runs and waits: MemoryError('no memory'); ask again"
    assert {str(error) for error in errors} == {lost}

    assert Caller(engine, PROMPT).finish()[0] == right
    np.testing.assert_array_equal(engine.embed(PROMPT).result(60), embedded)
    assert engine.free_cache_tokens == n_free


def begun(engine: NativeEngine) -> Caller:
    """One whose answer has begun, and whose blocks cannot be given back."""
    caller = Caller(engine, PROMPT, max_tokens=200)
    caller.events.get(timeout=60)
    engine._scheduler.blocks.release = fail  # type: ignore[method-assign]
    return caller


def test_a_cancelled_request_is_told(engine: NativeEngine) -> None:
    caller = begun(engine)
    engine.cancel(caller.request)
    assert caller.last().finish_reason == "cancelled"
    Caller(engine, PROMPT).finish()


def test_what_a_closed_engine_had_is_told(engine: NativeEngine) -> None:
    callers = [begun(engine), Caller(engine, PROMPT)]
    engine.close()
    assert all(caller.last().is_last for caller in callers)


def test_who_is_hit_by_a_step_is_told(engine: NativeEngine) -> None:
    caller, runner = begun(engine), engine._runner
    engine._runner = type("Failing", (), {"sample": fail})()  # type: ignore[assignment]
    error = caller.error()
    assert str(error) == "the engine failed in a step: MemoryError('no memory')"
    assert isinstance(error.__cause__, MemoryError)
    engine._runner = runner
    Caller(engine, PROMPT).finish()


def test_nothing_comes_after_the_last_event(engine: NativeEngine) -> None:
    engine._scheduler.remove = fail  # type: ignore[method-assign]
    caller = Caller(engine, PROMPT)
    caller.finish()
    Caller(engine, PROMPT).last()  # the account is made anew before this one ends
    assert caller.events.empty()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_cannot_go_on_is_closed(engine: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    is_failing, may_fail = threading.Event(), threading.Event()

    def queues() -> None:
        is_failing.set()
        may_fail.wait(60)
        raise MemoryError("no memory for an account")

    monkeypatch.setattr(engine, "_queues", queues)
    engine._scheduler.advance = fail  # type: ignore[method-assign]
    hit = Caller(engine, PROMPT)
    assert is_failing.wait(60)
    late, embedded = Caller(engine, PROMPT), engine.embed(PROMPT)
    may_fail.set()
    assert "lost track" in str(hit.error())
    assert "the engine is closed" in str(late.error())
    assert "the engine is closed" in str(embedded.exception(60))
    with pytest.raises(EngineError, match="the engine is closed"):
        Caller(engine, PROMPT)
