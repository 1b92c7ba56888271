"""Passes over a text that give no new tokens: their turn, their time, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from puna.server.answers.passes import embed_all, score
from puna.server.errors import ApiError
from puna.server.hosting.admission import Admission

IDS = [[1, 2, 3]]


class SlowEngine:
    """Computes until it is told to be done."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def embed(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        assert self.done.wait(10)
        return np.ones((len(prompts), 4), np.float32)

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        assert self.done.wait(10)
        return np.zeros(len(tokens) - 1, np.float32)


def slow_model() -> Any:
    admission = Admission(64, block_tokens=16, max_running=1, max_waiting=8, max_wait_s=60)
    return SimpleNamespace(admission=admission, llama=SimpleNamespace(engine=SlowEngine()))


async def until(model: Any, n_running: int, n_waiting: int) -> None:
    async with asyncio.timeout(10):
        while (model.admission.n_running, model.admission.n_waiting) != (n_running, n_waiting):
            await asyncio.sleep(0.001)


async def test_who_leaves_the_queue_is_not_computed_for() -> None:
    model = slow_model()
    first, second = (asyncio.create_task(embed_all(model, IDS, name, 10)) for name in "ab")
    await until(model, 1, 1)
    second.cancel()
    await until(model, 1, 0)
    model.llama.engine.done.set()
    assert (await first).shape == (1, 4)
    assert model.admission.reserved_tokens == 0


async def test_a_place_stays_taken_while_the_engine_computes_for_nobody() -> None:
    model = slow_model()
    first = asyncio.create_task(embed_all(model, IDS, "a", 10))
    await until(model, 1, 0)
    first.cancel()
    await asyncio.sleep(0.01)
    assert (model.admission.n_running, first.done()) == (1, False)
    model.llama.engine.done.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert model.admission.n_running == 0


@pytest.mark.parametrize(
    "compute", [lambda model: embed_all(model, IDS, "b", 0.01), lambda model: score(model, IDS[0], "b", 0.01)]
)
async def test_time_that_runs_out_in_the_queue_is_an_error(compute: Any) -> None:
    model = slow_model()
    first = asyncio.create_task(embed_all(model, IDS, "a", 10))
    await until(model, 1, 0)
    with pytest.raises(ApiError, match=r"took longer than 0\.01 s") as caught:
        await compute(model)
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    model.llama.engine.done.set()
    await first
    assert (model.admission.n_running, model.admission.n_waiting) == (0, 0)
