"""Turns for what takes long beside the models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.unit.server.live import Live

from puna.server.errors import ApiError
from puna.server.hosting.preparation import Preparation

BUSY = "busy: all are at work"


class Works:
    """Works that go on until they are let end."""

    def __init__(self, preparation: Preparation) -> None:
        self.begun: list[str] = []
        self._preparation = preparation
        self._ends: dict[str, asyncio.Event] = {}

    async def start(self, client: str, name: str) -> asyncio.Task[None]:
        self._ends[name] = asyncio.Event()

        async def work() -> None:
            self.begun.append(name)
            await self._ends[name].wait()

        task = asyncio.create_task(self._preparation.run(client, work))
        await settled()
        return task

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_works_at_a_time_and_clients_take_turns() -> None:
    works = Works(Preparation())
    tasks = [await works.start("alice", f"alice {i}") for i in range(3)]
    tasks.append(await works.start("bob", "bob"))
    assert works.begun == ["alice 0"]
    await works.end("alice 0", "alice 1", "bob", "alice 2")
    assert works.begun == ["alice 0", "alice 1", "bob", "alice 2"]
    await asyncio.gather(*tasks)


async def test_who_goes_away_keeps_the_turn_until_the_work_is_done() -> None:
    works = Works(Preparation())
    gone, waits = await works.start("alice", "gone"), await works.start("alice", "waits")
    gone.cancel()
    await settled()
    assert gone.cancelled()
    assert works.begun == ["gone"]
    await works.end("gone", "waits")
    assert works.begun == ["gone", "waits"]
    await waits


async def test_what_a_work_raises_is_told_and_ends_its_turn() -> None:
    async def fail() -> None:
        raise ValueError("no")

    preparation = Preparation()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await preparation.run("alice", fail)


async def test_a_burst_may_wait() -> None:
    preparation = Preparation()
    works = Works(preparation)
    tasks = [await works.start("alice", str(i)) for i in range(190)]
    preparation.close()
    await works.end("0")
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(each, "status_code", None) for each in told] == [None] + [503] * 189


async def test_nobody_waits_for_longer_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puna.server.hosting.preparation._MAX_WAIT_S", 0.05)
    preparation = Preparation()
    works = Works(preparation)
    first = await works.start("alice", "0")
    with pytest.raises(ApiError, match=r"no turn came within 0\.05 s") as caught:
        await preparation.run("bob", partial(asyncio.sleep, 0))
    assert caught.value.status_code == 429
    await works.end("0")
    await first
    await preparation.run("bob", partial(asyncio.sleep, 0))


async def test_those_that_would_wait_for_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puna.server.hosting.preparation._USUAL_S", 1.0)
    preparation = Preparation()
    works = Works(preparation)
    tasks = [await works.start("alice", str(i)) for i in range(31)]
    with pytest.raises(ApiError, match="busy: 30 requests wait already; try again in 31 s") as caught:
        await preparation.run("alice", partial(asyncio.sleep, 0))
    assert (caught.value.status_code, caught.value.headers) == (429, {"Retry-After": "31"})
    preparation.close()
    await works.end("0")
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(each, "status_code", None) for each in told] == [None] + [503] * 30


@pytest.fixture
def kept(live: Live) -> dict[str, str]:
    """A response, one of its items, and a conversation, that the server keeps."""
    response = live.http.post("/v1/responses", json={"model": "scripted", "input": "hum"}).json()
    return {
        "response": response["id"],
        "item": response["output"][0]["id"],
        "conversation": live.http.post("/v1/conversations").json()["id"],
    }


@pytest.fixture
def _busy(kept: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise ApiError(429, BUSY)

    monkeypatch.setattr(Preparation, "run", refuse)


Request = Callable[[dict[str, str]], tuple[str, Any]]
TAKE_A_TURN: dict[str, Request] = {
    "tokenize": lambda _: ("/tokenize", {"model": "tiny", "prompt": "hum"}),
    "detokenize": lambda _: ("/detokenize", {"model": "tiny", "tokens": [1]}),
    "count of messages": lambda _: (
        "/messages/count_tokens",
        {"model": "scripted", "messages": [{"role": "user", "content": "hum"}]},
    ),
    "count of a response": lambda _: ("/responses/input_tokens", {"model": "scripted", "input": "hum"}),
    "chain": lambda kept: (
        "/responses",
        {"model": "scripted", "input": "hum", "previous_response_id": kept["response"]},
    ),
    "chain in the background": lambda kept: (
        "/responses",
        {
            "model": "scripted",
            "input": "hum",
            "previous_response_id": kept["response"],
            "background": True,
        },
    ),
    "conversation": lambda kept: (
        "/responses",
        {"model": "scripted", "input": "hum", "conversation": kept["conversation"]},
    ),
    "named item": lambda kept: (
        "/responses",
        {"model": "scripted", "input": [{"type": "item_reference", "id": kept["item"]}]},
    ),
    "summary": lambda kept: (
        "/responses/compact",
        {"model": "scripted", "previous_response_id": kept["response"]},
    ),
    "named item of a conversation": lambda kept: (
        f"/conversations/{kept['conversation']}/items",
        {"items": [{"type": "item_reference", "id": kept["item"]}]},
    ),
    "items of a response": lambda kept: (f"/responses/{kept['response']}/input_items", None),
}


@pytest.mark.usefixtures("_busy")
@pytest.mark.parametrize("name", TAKE_A_TURN)
def test_what_reads_much_or_counts_takes_a_turn(live: Live, kept: dict[str, str], name: str) -> None:
    path, body = TAKE_A_TURN[name](kept)
    reply = live.http.get(f"/v1{path}") if body is None else live.http.post(f"/v1{path}", json=body)
    assert (reply.status_code, reply.json()["error"]["message"]) == (429, BUSY)


@pytest.mark.usefixtures("_busy")
def test_what_reads_nothing_does_not_wait_for_those_that_do(live: Live) -> None:
    for path, body in (
        ("/responses", {"model": "scripted", "input": "hum"}),
        ("/conversations", {"items": [{"role": "user", "content": "hum"}]}),
    ):
        assert live.http.post(f"/v1{path}", json=body).status_code == 200
