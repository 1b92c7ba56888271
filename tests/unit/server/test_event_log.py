"""Events that are read again, from any place and while they come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from puna.server import event_log
from puna.server.errors import ApiError
from puna.server.event_log import EventLog, EventLogs
from puna.server.schemas.base import NamedEvent


class Number(NamedEvent):
    """An event with a number."""

    number: int


class Text(NamedEvent):
    """An event with a text."""

    text: str


def number(value: int) -> Number:
    return Number(type="number", number=value)


async def read(log: EventLog, start: int = 0) -> list[str]:
    return [event.as_json() async for event in log.read(start)]


@pytest.fixture
def logs() -> EventLogs:
    return EventLogs()


@pytest.fixture
def log(logs: EventLogs) -> EventLog:
    return logs.begin("a")


def fill(logs: EventLogs, key: str, values: Iterable[int]) -> None:
    for value in values:
        logs.add(key, number(value))


async def test_readers_get_what_was_and_what_comes(logs: EventLogs, log: EventLog) -> None:
    fill(logs, "a", [0])
    early, late = asyncio.create_task(read(log)), asyncio.create_task(read(log, 1))
    for value in (1, 2):
        await asyncio.sleep(0)
        fill(logs, "a", [value])
    await asyncio.sleep(0)
    logs.end("a")
    assert await early == [number(i).as_json() for i in range(3)]
    assert await late == [number(i).as_json() for i in (1, 2)]
    assert await read(log, 2) == [number(2).as_json()]
    assert await read(log, 9) == []
    logs.close()


async def test_an_event_is_kept_as_it_was(logs: EventLogs, log: EventLog) -> None:
    event = number(1)
    logs.add("a", event)
    event.number = 2
    logs.end("a")
    assert await read(log) == [number(1).as_json()]
    logs.close()


async def test_all_logs_together_have_a_bound(logs: EventLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_MAX_BYTES", 20_000)
    for key in "abcd":
        logs.begin(key)
    for value in range(500):
        for key in "abcd":
            logs.add(key, number(value))
            found = [logs.find(each) for each in "abcd"]
            assert logs.n_bytes == sum(each.n_bytes for each in found if each) <= 20_000
        if value == 300:
            logs.end("a")
    over, *running = [each.n_dropped for each in (logs.find(key) for key in "abcd") if each]
    assert over == 301  # all of them
    assert max(running) - min(running) <= 1  # the oldest, of all alike
    logs.add("b", Text(type="text", text="x" * 30_000))
    assert logs.n_bytes == 0
    logs.close()


async def test_who_keeps_up_misses_nothing(
    logs: EventLogs, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_MAX_BYTES", 20_000)
    reading = asyncio.create_task(read(log))
    for value in range(0, 1000, 2):
        fill(logs, "a", [value, value + 1])
        await asyncio.sleep(0)
    logs.end("a")
    assert await reading == [number(i).as_json() for i in range(1000)]
    assert log.n_dropped > 900
    late = logs.begin("b")  # a full house does not take a newcomer's first events
    fill(logs, "b", range(3))
    logs.end("b")
    assert await read(late) == [number(i).as_json() for i in range(3)]
    logs.close()


async def test_who_comes_too_late_is_told(
    logs: EventLogs, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_MAX_BYTES", 20_000)
    fill(logs, "a", [0])
    slow = log.read(0)
    await anext(slow)
    fill(logs, "a", range(1, 1000))
    logs.end("a")
    last = log.n_dropped - 1
    told = f"up to number {last} are not kept any more; go on .* `starting_after={last}`"
    with pytest.raises(ApiError, match=told):
        await anext(slow)
    with pytest.raises(ApiError, match=told) as caught:
        await read(log, last)
    assert (caught.value.status_code, caught.value.code) == (400, "events_gone")
    assert await read(log, last + 1) == [number(i).as_json() for i in range(last + 1, 1000)]
    logs.close()


async def test_a_reader_of_what_has_just_ended_goes_before_what_is_older(
    logs: EventLogs, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.begin("old")
    fill(logs, "old", range(10))
    fill(logs, "a", range(10))
    reader = log.read(0)
    await anext(reader)
    logs.end("a")
    monkeypatch.setattr(event_log, "_MAX_BYTES", logs.n_bytes)
    fill(logs, "old", [10])
    assert [each.json async for each in reader] == [number(i).as_json() for i in range(1, 10)]
    logs.close()


async def test_who_comes_when_no_event_is_left_is_not_told_to_go_on(
    logs: EventLogs, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(logs, "a", range(3))
    logs.end("a")
    logs.begin("b")
    monkeypatch.setattr(event_log, "_MAX_BYTES", 10_000)
    fill(logs, "b", range(500))
    with pytest.raises(ApiError, match="up to number 2 are not kept any more; leave `stream` out"):
        await read(log)
    logs.close()


async def test_what_is_deleted_is_held_by_nobody(logs: EventLogs, log: EventLog) -> None:
    fill(logs, "a", range(3))
    reader = log.read(0)
    await anext(reader)
    logs.forget("a")
    assert (log.n_bytes, logs.n_bytes, logs.find("a")) == (0, 0, None)
    fill(logs, "a", range(3))  # it is still being computed
    assert logs.n_bytes == 0
    with pytest.raises(ApiError, match="not kept any more"):
        await anext(reader)


async def test_who_waits_at_the_end_is_through_when_the_server_is(logs: EventLogs, log: EventLog) -> None:
    fill(logs, "a", range(2))
    waiting = asyncio.create_task(read(log))
    await asyncio.sleep(0)
    logs.close()
    assert len(await waiting) == 2


async def test_logs_that_are_over_go_after_a_while(
    logs: EventLogs, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_KEEP_S", 0)
    fill(logs, "a", range(2))
    logs.end("a")
    logs.end("never began")
    await asyncio.sleep(0.001)
    assert (logs.find("a"), logs.n_bytes) == (None, 0)
