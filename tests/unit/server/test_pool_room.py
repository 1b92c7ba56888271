"""Memory for models: who makes room, who waits for it, and what becomes of them when the server ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.unit.server.test_pool import FakeLlama, loaded, model, pool, touch, turn_of_the_loop, wait_for

from puna.server.errors import ApiError


async def test_the_longest_unused_makes_room() -> None:
    models = pool(model("a", 40), model("b", 40), model("c", 40))
    for name in ("a", "b", "a"):
        await touch(models, name)
    await touch(models, "c")
    assert loaded(models) == ["a", "c"]


async def test_what_is_in_use_stays_and_the_next_waits_for_it() -> None:
    models = pool(model("a", 60), model("b", 60))
    async with models.use("a"):
        waiting = asyncio.create_task(touch(models, "b"))
        await asyncio.sleep(0.01)
        assert loaded(models) == ["a"]
        assert not await models.unload(models.models["a"])
    await waiting
    assert loaded(models) == ["b"]


async def test_a_model_that_can_never_fit_is_refused() -> None:
    with pytest.raises(ApiError, match=r"needs 0\.2 GB of memory and the server may use 0\.1 GB") as caught:
        await touch(pool(model("a", 200_000_000), memory_bytes=100_000_000), "a")
    assert caught.value.status_code == 503


async def test_who_waits_for_room_waits_only_so_long_and_holds_up_no_other() -> None:
    models = pool(model("a", 60), model("b", 60), model("small", 40), timeout_s=0.05)
    async with models.use("a"):
        with pytest.raises(ApiError, match=r"model 'b' was not in memory within 0\.05 s") as caught:
            await touch(models, "b")
        assert (caught.value.status_code, caught.value.code) == (503, "model_not_ready")
        await touch(models, "small")  # which has room
    await touch(models, "b")
    assert "b" in loaded(models)


async def test_what_fits_is_loaded_while_a_larger_one_waits_for_room() -> None:
    models = pool(model("a", 60), model("large", 60), model("small", 40))
    async with models.use("a"):
        waiting = asyncio.create_task(touch(models, "large"))
        await turn_of_the_loop()
        await asyncio.wait_for(touch(models, "small"), 10)
        assert loaded(models) == ["a", "small"]
    await waiting
    assert "large" in loaded(models)


async def test_two_that_arrive_together_do_not_take_the_same_room() -> None:
    gate = threading.Event()
    models = pool(model("a", 60, load=lambda: gate.wait(5) and FakeLlama()), model("b", 60))
    tasks = [asyncio.create_task(touch(models, name)) for name in "ab"]
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in tasks)
    gate.set()
    await asyncio.gather(*tasks)
    assert loaded(models) == ["b"]


async def test_idle_models_stay_where_their_room_would_not_do() -> None:
    models = pool(model("a", 60), model("idle", 30), model("large", 60))
    await touch(models, "idle")
    async with models.use("a"):
        waiting = asyncio.create_task(touch(models, "large"))
        await turn_of_the_loop()
        assert loaded(models) == ["a", "idle"]
    await waiting
    assert "large" in loaded(models)


@pytest.mark.parametrize("wanted", ["a", "b"])
async def test_memory_is_free_once_a_model_is_closed(wanted: str) -> None:
    gate = threading.Event()

    class Slow(FakeLlama):
        def close(self) -> None:
            gate.wait(5)

    models = pool(model("a", 60, load=Slow), model("b", 60))
    await touch(models, "a")
    leaving = asyncio.create_task(models.unload(models.models["a"]))
    waiting = asyncio.create_task(touch(models, wanted))
    await asyncio.sleep(0.02)
    assert loaded(models) == []
    gate.set()
    await asyncio.gather(leaving, waiting)
    assert loaded(models) == [wanted]


@pytest.mark.parametrize(("wanted", "stays"), [("small", True), ("large", False)])
async def test_idle_models_stay_where_memory_comes_free_that_will_do(wanted: str, stays: bool) -> None:
    gate = threading.Event()

    class Slow(FakeLlama):
        def close(self) -> None:
            gate.wait(5)

    models = pool(model("a", 60, load=Slow), model("idle", 40), model("small", 40), model("large", 61))
    for name in ("a", "idle"):
        await touch(models, name)
    leaving = asyncio.create_task(models.unload(models.models["a"]))
    await turn_of_the_loop()
    waiting = asyncio.create_task(touch(models, wanted))
    await turn_of_the_loop()
    gate.set()
    await asyncio.gather(leaving, waiting)
    assert loaded(models) == (["idle"] if stays else []) + [wanted]


async def test_what_could_not_be_loaded_takes_no_memory() -> None:
    def fail() -> Any:
        raise OSError("it is damaged")

    models = pool(model("bad", 60, load=fail), model("good", 60))
    with pytest.raises(ApiError):
        await touch(models, "bad")
    await asyncio.wait_for(touch(models, "good"), 10)


async def test_closing_sends_away_those_that_wait_for_a_model_and_closes_it_when_it_comes() -> None:
    gate, came = threading.Event(), FakeLlama()
    models = pool(model("a", load=lambda: gate.wait(20) and came))
    waiting = [asyncio.create_task(touch(models, "a")) for _ in range(2)]
    await turn_of_the_loop()
    assert models.is_loading
    await asyncio.wait_for(models.close(), 10)
    errors: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert [(error.status_code, error.code) for error in errors] == [(503, "shutting_down")] * 2
    assert models.is_loading
    gate.set()
    await wait_for(lambda: came.is_closed)
    assert not models.is_loading
    assert loaded(models) == []


async def test_a_load_that_ends_as_the_pool_is_closed_leaves_nothing() -> None:
    gate, came = threading.Event(), FakeLlama()
    models: Any = pool(model("a", load=lambda: gate.wait(20) and came))
    waiting = asyncio.create_task(touch(models, "a"))
    await turn_of_the_loop()
    gate.set()
    assert models._load.result() is came  # and the loop has not heard of it yet
    await models.close()
    await asyncio.gather(waiting, return_exceptions=True)
    await wait_for(lambda: came.is_closed)


async def test_closing_sends_away_those_that_wait_for_room_and_those_that_come_later() -> None:
    models = pool(model("a", 60), model("b", 60))
    async with models.use("a"):
        waiting = asyncio.create_task(touch(models, "b"))
        await turn_of_the_loop()
        await models.close()
        later = [touch(models, name) for name in "ab"]
        async with asyncio.timeout(10):
            errors: list[Any] = await asyncio.gather(waiting, *later, return_exceptions=True)
    assert [(error.status_code, error.code) for error in errors] == [(503, "shutting_down")] * 3


async def test_closing_at_once_is_told_as_well() -> None:
    models = pool(model("a"))
    waiting = asyncio.create_task(touch(models, "a"))
    await asyncio.sleep(0)
    await models.close()
    (error,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(error, ApiError)
    assert error.code == "shutting_down"
