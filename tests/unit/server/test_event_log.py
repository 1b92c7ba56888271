"""Events that are read again, from any place and while they come."""

from __future__ import annotations

import asyncio

import pytest

from puna.server import event_log
from puna.server.event_log import EventLog, EventLogs
from puna.server.schemas.base import NamedEvent


class Number(NamedEvent):
    """An event with a number."""

    number: int


def number(value: int) -> Number:
    return Number(type="number", number=value)


async def read(log: EventLog, start: int = 0) -> list[str]:
    return [event.as_json() async for event in log.read(start)]


async def test_readers_get_what_was_and_what_comes() -> None:
    log = EventLog()
    log.add(number(0))
    early, late = asyncio.create_task(read(log)), asyncio.create_task(read(log, 1))
    for value in (1, 2):
        await asyncio.sleep(0)
        log.add(number(value))
    await asyncio.sleep(0)
    log.end()
    assert await early == [number(i).as_json() for i in range(3)]
    assert await late == [number(i).as_json() for i in (1, 2)]
    assert await read(log, 2) == [number(2).as_json()]
    assert await read(log, 9) == []


async def test_an_event_is_kept_as_it_was() -> None:
    log, event = EventLog(), number(1)
    log.add(event)
    event.number = 2
    log.end()
    assert await read(log) == [number(1).as_json()]


async def test_logs_that_are_over_go_when_they_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_MAX_BYTES", 100)
    logs = EventLogs()
    for key in ("a", "b", "c", "running"):
        log = logs.begin(key)
        for value in range(2):
            log.add(number(value))
        assert log.n_bytes > 50
    for key in ("a", "b", "c"):
        logs.end(key)
    assert [key for key in ("a", "b", "c", "running") if logs.find(key)] == ["c", "running"]
    waiting = asyncio.create_task(read(logs.begin("running")))
    await asyncio.sleep(0)
    logs.close()
    assert len(await waiting) == 2
    assert logs.find("c") is None


async def test_logs_that_are_over_go_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_KEEP_S", 0)
    logs = EventLogs()
    logs.begin("a")
    logs.end("a")
    logs.end("never began")
    await asyncio.sleep(0.001)
    assert logs.find("a") is None
