"""What fails between two steps takes down what there is, and nothing that comes after it."""

from __future__ import annotations

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

    def fail(*_: object) -> None:
        raise MemoryError("no memory")

    setattr(PLACES[name](engine), name, fail)  # until the account is made anew
    callers = [Caller(engine, PROMPT) for _ in range(3)]
    passes = [engine.embed(PROMPT) for _ in range(2)]
    errors = [error for caller in callers if (error := caller.last().error)]
    errors += [error for each in passes if (error := each.exception(60))]
    assert errors
    assert all(isinstance(error, EngineError) for error in errors)
    assert {str(error) for error in errors} == {"the engine failed between two steps: no memory"}

    assert Caller(engine, PROMPT).finish()[0] == right
    np.testing.assert_array_equal(engine.embed(PROMPT).result(60), embedded)
    assert engine.free_cache_tokens == n_free
