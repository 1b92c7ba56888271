"""The queue in front of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from puna.server.errors import ApiError
from puna.server.hosting import admission as admission_module
from puna.server.hosting.admission import Admission


def queue(capacity: int = 64, **limits: Any) -> Admission:
    usual = {"block_tokens": 16, "max_running": 8, "max_waiting": 8, "max_wait_s": 1000}
    return Admission(capacity, **{**usual, **limits})


Hold = Callable[[str, str, int], Awaitable[asyncio.Task[None]]]


def holder(admission: Admission, order: list[str]) -> Hold:
    """Starts tasks that hold tokens until they are cancelled, and notes when each gets its turn."""

    async def hold(name: str, client: str, n_tokens: int) -> asyncio.Task[None]:
        async def run() -> None:
            async with admission.reserve(client, n_tokens):
                order.append(name)
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        return task

    return hold


class Clock:
    """A time that stands still unless it is moved."""

    now_s = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admission_module.time, "monotonic", lambda: clock.now_s)
    return clock


async def learn(admission: Admission, clock: Clock, *, first_s: float, whole_s: float) -> None:
    """Let answers run until the queue expects them to take so long."""
    for _ in range(60):
        async with admission.reserve("learning", 16) as turn:
            clock.now_s += first_s
            admission.on_token(turn)
            clock.now_s += whole_s - first_s
            admission.on_token(turn)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)


async def test_a_turn_at_once_passes_nobody_by() -> None:
    admission, order = queue(), []
    hold = holder(admission, order)
    turn = admission.take("a", 33)
    assert turn is not None
    waiting = await hold("waiting", "b", 32)  # 48 are held
    assert admission.take("c", 16) is None  # they would fit, but somebody waits
    admission.end(turn)
    await asyncio.sleep(0)
    assert (order, admission.reserved_tokens) == (["waiting"], 32)
    assert admission.take("c", 33) is None  # they do not fit
    late = admission.take("c", 32)
    assert late is not None
    admission.end(late)
    await end(waiting)
    assert (admission.n_running, admission.reserved_tokens) == (0, 0)


async def test_positions_are_set_aside_in_whole_blocks() -> None:
    admission, order = queue(), []
    hold = holder(admission, order)
    first = await hold("first", "a", 17)
    assert (admission.reserved_tokens, admission.n_running) == (32, 1)
    second = await hold("second", "a", 33)  # 48 more do not fit
    assert (order, admission.n_waiting) == (["first"], 1)
    await end(first)
    assert (order, admission.reserved_tokens) == (["first", "second"], 48)
    await end(second)
    assert (admission.reserved_tokens, admission.n_running, admission.n_waiting) == (0, 0, 0)


async def test_the_client_with_the_least_running_goes_first() -> None:
    admission, order = queue(64), []
    hold = holder(admission, order)
    greedy = [await hold(f"greedy {i}", "greedy", 32) for i in range(6)]
    modest = await hold("modest", "modest", 32)
    assert order == ["greedy 0", "greedy 1"]
    await end(greedy[0])
    assert order[2:] == ["modest"]
    await end(greedy[1])
    assert order[3:] == ["greedy 2"]
    await end(modest, *greedy[2:])


async def test_who_is_next_is_not_passed_by() -> None:
    admission, order = queue(64), []
    hold = holder(admission, order)
    running = [await hold("a", "a", 32), await hold("b", "b", 32)]
    large, small = await hold("large", "c", 64), await hold("small", "d", 16)
    await end(running[0])
    assert order == ["a", "b"]  # 32 are free, which the small one could use, but the large one is next
    await end(running[1])
    assert order == ["a", "b", "large"]
    await end(large)
    assert order[-1] == "small"
    await end(small)


async def test_too_many_that_wait_are_refused_with_advice() -> None:
    admission = queue(16, max_waiting=2)
    hold = holder(admission, [])
    tasks = [await hold(str(i), "a", 16) for i in range(3)]
    with pytest.raises(ApiError, match="busy: 2 answers wait") as caught:
        async with admission.reserve("b", 16):
            pass
    assert caught.value.status_code == 429
    assert 1 <= int((caught.value.headers or {})["Retry-After"]) <= 60
    with pytest.raises(ApiError):
        admission.check("a", 1)
    await end(*tasks)
    admission.check("a", 2)


async def test_more_than_ever_run_and_wait_is_the_client_s_mistake() -> None:
    admission = queue(max_running=2, max_waiting=3)
    admission.check("a", 5)
    with pytest.raises(ApiError, match="may ask for 5 answers at once, got 6; ask for fewer") as caught:
        admission.check("a", 6)
    assert caught.value.status_code == 400


async def test_a_client_leaves_room_in_the_queue_for_others() -> None:
    admission, order = queue(16, max_waiting=9), []
    hold = holder(admission, order)
    greedy = [await hold(f"greedy {i}", "greedy", 16) for i in range(8)]
    with pytest.raises(ApiError, match="busy: 7 answers wait"):
        admission.check("greedy", 1)
    others = [await hold(name, name, 16) for name in ("b", "c")]
    with pytest.raises(ApiError, match="busy: 9 answers wait"):
        admission.check("d", 1)
    await end(greedy[0])
    await end(greedy[1])
    await end(others[0])
    await end(others[1])
    assert order[1:] == ["greedy 1", "b", "c", "greedy 2"]  # by turns
    await end(*greedy, *others)
    with pytest.raises(ApiError, match="may ask for 15 answers at once, got 16"):
        admission.check("greedy", 16)


async def test_a_request_for_many_answers_is_taken_where_none_run() -> None:
    admission = queue(max_running=8, max_waiting=100, max_wait_s=3)
    admission.check("a", 32)  # four rounds of 1 s, the first of which begins at once
    with pytest.raises(ApiError, match="busy") as caught:
        admission.check("a", 33)
    assert caught.value.status_code == 429


async def test_who_would_wait_for_too_long_is_refused(clock: Clock) -> None:
    admission = queue(64, max_running=2, max_wait_s=5)
    await learn(admission, clock, first_s=1, whole_s=10)
    hold = holder(admission, [])
    running = [await hold("first", "a", 16)]
    assert not admission.is_full("a")
    clock.now_s += 3
    running.append(await hold("second", "a", 16))
    assert advice(admission) == 7  # the first is expected to end in 7 s
    clock.now_s += 3
    assert not admission.is_full("a")  # in 4 s
    running.append(await hold("waits", "b", 16))
    assert advice(admission) == 10  # the second ends in 7 s, and half of one that is to come back goes first
    clock.now_s += 20
    assert not admission.is_full("a")  # both are late; either may end at any moment
    running.append(await hold("waits too", "c", 16))
    assert advice(admission) == 13  # one of those that wait now has to run first
    await end(*running[::-1])
    assert not admission.is_full("a")


async def test_in_overload_nobody_waits_long_behind_others(clock: Clock) -> None:
    admission = queue(64, max_running=2, max_waiting=4, max_wait_s=60)
    await learn(admission, clock, first_s=3, whole_s=10)
    hold = holder(admission, [])
    running = [await hold(name, name, 16) for name in "ab"]
    clock.now_s += 8  # both have 2 s left
    waiting = [await hold(name, name, 16) for name in "cdef"]  # a burst waits
    # The fifth turn is expected in 22.5 s. Every second one that is told so takes a place before the next,
    # and there are two places every 10 s.
    assert [advice(admission, name) for name in "ghijk"] == [23, 25, 28, 30, 33]
    await end(*running, *waiting[2:])  # c and d begin
    clock.now_s += 7.5
    waiting.append(await hold("g", "g", 16))
    assert not admission.is_full("h")  # in 2.5 s, and its first token 3 s later
    waiting.append(await hold("h", "h", 16))
    assert admission.is_full("i")  # in 12.5 s, since g and h are first
    clock.now_s += 20  # of those that were sent away, all but one have come
    assert not admission.is_full("i")
    await end(*waiting)


async def test_a_client_that_asks_for_too_much_waits_shortly_itself(clock: Clock) -> None:
    admission = queue(16, max_running=1, max_waiting=4, max_wait_s=60)
    hold = holder(admission, [])
    tasks = [await hold(str(i), "greedy", 16) for i in range(4)]
    for _ in range(4):
        advice(admission, "greedy")
    await end(tasks.pop())
    assert not admission.is_full("greedy")  # no more are to come back than may wait
    tasks.append(await hold("4", "greedy", 16))
    advice(admission, "greedy")
    await end(tasks.pop())
    assert admission.is_full("greedy")
    assert not admission.is_full("modest")
    await end(*tasks)


async def test_one_client_that_knocks_all_the_time_keeps_nobody_out(clock: Clock) -> None:
    admission = queue(64, max_running=2, max_waiting=4, max_wait_s=60)
    await learn(admission, clock, first_s=1, whole_s=10)
    hold = holder(admission, [])
    running = [await hold(name, name, 16) for name in "ab"]
    waiting = [await hold(name, name, 16) for name in "cdef"]
    assert [advice(admission, "knocks") for _ in range(20)][-1] == 60
    await end(*waiting)
    for _ in range(60):
        clock.now_s += 1
        assert not admission.is_full("g")
        advice(admission, "knocks")  # more of its own are to come back than may wait
    await end(*running)


async def test_who_comes_back_too_soon_counts_once_among_all(clock: Clock) -> None:
    admission = queue(64, max_running=2, max_waiting=4, max_wait_s=60)
    await learn(admission, clock, first_s=3, whole_s=10)
    hold = holder(admission, [])
    running = [await hold(name, name, 16) for name in "ab"]
    waiting = [await hold(name, name, 16) for name in "cdef"]
    for _ in range(3):
        for name in "ghij":
            advice(admission, name)
    await end(*waiting)
    assert not admission.is_full("k")  # as many are to come back as may wait
    waiting = [await hold(name, name, 16) for name in "cdef"]
    advice(admission, "k")
    await end(*waiting)
    assert admission.is_full("l")
    await end(*running)


@pytest.mark.parametrize("max_waiting", [0, 1])
async def test_those_that_were_to_come_back_are_forgotten_while_it_is_full(
    clock: Clock, max_waiting: int
) -> None:
    admission = queue(16, max_running=1, max_waiting=max_waiting)
    hold = holder(admission, [])
    tasks = [await hold(name, name, 16) for name in "ab"[: 1 + max_waiting]]
    first = advice(admission, "c")
    for _ in range(200):
        advice(admission, "c")
    assert advice(admission, "c") == 60
    clock.now_s += 60
    assert advice(admission, "c") == first
    await end(*tasks)


async def overloaded(clock: Clock) -> tuple[Admission, Hold, list[asyncio.Task[None]]]:
    """A queue with room for two, which run, and one more; two were sent away, and who waited has left."""
    admission = queue(64, max_running=2, max_waiting=1, max_wait_s=60)
    await learn(admission, clock, first_s=2, whole_s=10)
    hold = holder(admission, [])
    running = [await hold(name, name, 32) for name in "ab"]
    waiting = await hold("c", "c", 32)
    assert [advice(admission, name) for name in "de"] == [10, 13]
    await end(waiting)
    return admission, hold, running


async def test_overload_lasts_while_those_sent_away_have_yet_to_come(clock: Clock) -> None:
    admission, _, running = await overloaded(clock)
    assert [advice(admission, name) for name in "fg"] == [15, 18]  # though nobody waits
    clock.now_s += 13
    assert admission.is_full("h")
    clock.now_s += 2
    assert not admission.is_full("h")
    await end(*running)


async def test_in_overload_who_finds_no_room_in_the_cache_waits_shortly_too(clock: Clock) -> None:
    admission, hold, running = await overloaded(clock)
    await end(running.pop())
    assert not admission.is_full("f")  # there is a place
    with pytest.raises(ApiError, match="busy"):
        async with admission.reserve("f", 48):
            pass
    running.append(await hold("g", "g", 32))
    assert admission.is_full("h")
    await end(*running)


def advice(admission: Admission, client: str = "a") -> int:
    """After how many seconds one more may come again, which is refused now."""
    assert admission.is_full(client)
    with pytest.raises(ApiError, match="busy") as caught:
        admission.check(client, 1)
    return int((caught.value.headers or {})["Retry-After"])


async def test_what_could_never_fit_is_an_error_with_both_numbers() -> None:
    with pytest.raises(ApiError, match="may take 65 tokens and the cache holds 64") as caught:
        async with queue(64).reserve("a", 65):
            pass
    assert caught.value.status_code == 400


async def test_who_leaves_the_queue_frees_its_place() -> None:
    admission, order = queue(64), []
    hold = holder(admission, order)
    running = await hold("running", "a", 48)
    large, small = await hold("large", "b", 64), await hold("small", "c", 16)
    await end(large)
    assert order == ["running", "small"]
    await end(running, small)
    assert (admission.reserved_tokens, admission.n_waiting) == (0, 0)


async def test_leaving_in_the_moment_of_the_turn_loses_nothing() -> None:
    admission, order = queue(16), []
    hold = holder(admission, order)
    running, waiting = await hold("running", "a", 16), await hold("waiting", "b", 16)
    running.cancel()
    await asyncio.sleep(0)  # the turn is given, and the task that gets it has not run yet
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert (admission.reserved_tokens, admission.n_running, admission.n_waiting) == (0, 0, 0)


async def test_who_runs_and_who_waits_may_leave_in_the_same_moment() -> None:
    admission, order = queue(16), []
    hold = holder(admission, order)
    running, waiting = await hold("running", "a", 16), await hold("waiting", "b", 16)
    last = await hold("last", "c", 16)
    running.cancel()
    waiting.cancel()  # both have yet to notice, and the turn of the second comes with the end of the first
    left = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(error) for error in left] == [asyncio.CancelledError] * 2
    await asyncio.sleep(0)
    assert order == ["running", "last"]
    await end(last)
    assert (admission.reserved_tokens, admission.n_running, admission.n_waiting) == (0, 0, 0)


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_who_leaves_while_the_queue_is_closed_disturbs_nothing(leaves_first: bool) -> None:
    admission = queue(16)
    hold = holder(admission, [])
    running, waiting = await hold("running", "a", 16), await hold("waiting", "b", 16)
    for act in (waiting.cancel, admission.close) if leaves_first else (admission.close, waiting.cancel):
        act()
    (left,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(left, asyncio.CancelledError)
    await end(running)
    assert (admission.reserved_tokens, admission.n_running, admission.n_waiting) == (0, 0, 0)


async def test_closing_sends_away_those_that_wait_and_those_that_come() -> None:
    admission = queue(32)
    hold = holder(admission, [])
    running, waiting = await hold("running", "a", 16), await hold("waiting", "b", 32)
    admission.close()
    coming = await hold("coming", "c", 16)
    for error in await asyncio.gather(waiting, coming, return_exceptions=True):
        assert isinstance(error, ApiError)
        assert (error.status_code, error.code) == (503, "shutting_down")
    await end(running)
