"""Models in memory: found, loaded once, unloaded when idle or in the way, and failing alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import save_tiny

from puna.models.catalogue import DEFAULT_MODEL
from puna.models.local import open_model
from puna.server.errors import ApiError
from puna.server.hosting.hosted import HostedModel
from puna.server.hosting.pool import ModelPool
from puna.server.run import host_all
from puna.server.settings import ServerSettings


class FakeLlama:
    """As much of a `Llama` as the pool looks at."""

    class engine:
        cache_tokens = 64
        is_closed = False

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def model(name: str, size: int = 10, load: Callable[[], Any] = FakeLlama) -> HostedModel:
    return HostedModel(id=name, context_tokens=64, need_bytes=size, load=load)


def pool(*models: HostedModel, memory_bytes: int = 100, **settings: Any) -> ModelPool:
    return ModelPool(models, ServerSettings(**settings), memory_bytes)


async def touch(models: ModelPool, name: str) -> None:
    async with models.use(name):
        pass


async def turn_of_the_loop() -> None:
    """Let others go on until all of them wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def loaded(models: ModelPool) -> list[str]:
    return [m.id for m in models.models.values() if m.loaded is not None]


@pytest.mark.parametrize(
    "name",
    [
        "llama3.2-1b-instruct",
        "llama3.2:1b",
        "meta-llama/Llama-3.2-1B-Instruct",
        "hf:meta-llama/Llama-3.2-1B-Instruct",
        "Llama3.2-1B-Instruct",
        "Llama-3.2-1B-Instruct",
        "./as/the/operator/wrote/it",
    ],
)
def test_every_way_to_write_a_model_is_understood(name: str) -> None:
    one = model("llama3.2-1b-instruct")
    one.spellings.add("./as/the/operator/wrote/it")
    assert pool(model("other"), one).find(name) is one


def test_a_model_of_the_hub_is_found_with_and_without_its_prefix(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    save_tiny(folder)
    settings = ServerSettings(context=64)
    (one,) = host_all([("hf:me/my-model", open_model(str(folder), "auto"))], settings, 10**9)
    models = pool(model("other"), one)
    for name in ("hf:me/my-model", "me/my-model", one.id):
        assert models.find(name) is one
    with pytest.raises(ApiError):
        models.find("hf:you/my-model")


def test_a_folder_may_be_written_in_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My Model"
    folder.mkdir()
    save_tiny(folder)
    monkeypatch.chdir(tmp_path)
    found = [(written, open_model(written, "auto")) for written in (str(folder), "./My Model")]
    (one,) = host_all(found, ServerSettings(context=64), 10**9)
    assert one.spellings == {str(folder), "./My Model"}


def test_a_model_of_the_catalogue_that_is_not_served_is_not_found() -> None:
    with pytest.raises(ApiError, match=r"Model '.*' not found\. Use 'client\.models\.list\(\)'") as caught:
        pool(model("other")).find(DEFAULT_MODEL)
    assert caught.value.status_code == 404


async def test_many_at_once_load_a_model_once() -> None:
    loads = []
    models = pool(model("a", load=lambda: loads.append(1) or FakeLlama()))
    await asyncio.gather(*(touch(models, "a") for _ in range(20)))
    assert loads == [1]


async def test_an_idle_model_is_unloaded_after_its_time() -> None:
    models = pool(model("a"), keep_alive_s=0.02)
    await touch(models, "a")
    llama: Any = models.models["a"].loaded.llama  # type: ignore[union-attr]
    while loaded(models):
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    assert llama.is_closed


async def test_a_model_that_is_used_again_is_not_unloaded_early() -> None:
    models = pool(model("a"), keep_alive_s=0.05)
    await touch(models, "a")
    async with models.use("a"):
        await asyncio.sleep(0.1)
        assert loaded(models) == ["a"]


async def test_however_often_a_model_is_used_one_timer_looks_after_it() -> None:
    models, loop = pool(model("a"), keep_alive_s=1000), asyncio.get_running_loop()
    await touch(models, "a")
    timers: Any = loop._scheduled  # type: ignore[attr-defined]
    n_before = len(timers)
    for _ in range(100):
        await touch(models, "a")
    assert len(timers) == n_before


async def test_a_failure_to_load_is_told_to_all_who_wait_and_to_no_others() -> None:
    gate = threading.Event()

    def fail() -> Any:
        gate.wait(5)
        raise OSError("/srv/models/secret is damaged")

    models = pool(model("bad", load=fail), model("good"))
    waiting = [asyncio.create_task(touch(models, "bad")) for _ in range(3)]
    await asyncio.sleep(0)
    gate.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(error, "status_code", error) for error in errors] == [503] * 3
    assert all("secret" not in str(error.detail) for error in errors)  # type: ignore[union-attr]
    await touch(models, "good")
    assert models.models["bad"].n_users == 0


async def test_who_began_a_load_may_leave() -> None:
    gate = threading.Event()
    models = pool(model("a", load=lambda: gate.wait(5) and FakeLlama()))
    first, second = (asyncio.create_task(touch(models, "a")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await second
    assert loaded(models) == ["a"]


async def test_a_model_that_arrives_when_nobody_wants_it_is_unloaded_after_its_time() -> None:
    gate = threading.Event()
    models = pool(model("a", load=lambda: gate.wait(5) and FakeLlama()), keep_alive_s=0.02)
    waiting = asyncio.create_task(touch(models, "a"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    arriving = models.models["a"].arriving
    gate.set()
    assert arriving is not None
    await arriving
    assert loaded(models) == ["a"]
    while loaded(models):
        await asyncio.sleep(0.005)


async def test_too_many_that_wait_for_a_load_are_refused() -> None:
    gate = threading.Event()
    models = pool(model("a", load=lambda: gate.wait(5) and FakeLlama()), max_waiting=2)
    waiting = [asyncio.create_task(touch(models, "a")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as caught:
        await touch(models, "a")
    assert caught.value.status_code == 429
    gate.set()
    await asyncio.gather(*waiting)
