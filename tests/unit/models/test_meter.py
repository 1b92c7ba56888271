"""Progress in numbers, with a clock that the test turns."""

from __future__ import annotations

import time

import pytest

from puna.errors import ConfigError
from puna.models.progress import Meter, Silent, Transfer
from puna.models.rate import RateLimit, parse_rate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watcher(Silent):
    def __init__(self) -> None:
        self.seen: list[Transfer] = []

    def advance(self, transfer: Transfer) -> None:
        self.seen.append(transfer)


def test_rate_and_remaining_time() -> None:
    clock, watcher = Clock(), Watcher()
    meter = Meter(watcher, 1000, clock)
    meter.advance(0)
    assert watcher.seen[-1] == Transfer(done_bytes=0, total_bytes=1000, bytes_per_s=None, remaining_s=None)
    clock.now = 2.0
    meter.advance(100)
    assert watcher.seen[-1] == Transfer(done_bytes=100, total_bytes=1000, bytes_per_s=50.0, remaining_s=18.0)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock, watcher = Clock(), Watcher()
    meter = Meter(watcher, 10_000, clock)
    for second in range(31):
        clock.now = float(second)
        meter.advance(min(second, 20) * 100)
    assert watcher.seen[20].bytes_per_s == 100.0
    assert watcher.seen[25].bytes_per_s == 50.0
    assert watcher.seen[30].bytes_per_s == 0.0
    assert watcher.seen[30].remaining_s is None


def test_bytes_that_were_there_before_are_not_counted_as_speed() -> None:
    clock, watcher = Clock(), Watcher()
    meter = Meter(watcher, 1000, clock)
    meter.finish_file(500)
    meter.advance(100)
    clock.now = 1.0
    meter.advance(110)
    assert watcher.seen[-1].bytes_per_s == 110.0
    assert watcher.seen[-1].done_bytes == 610


def test_files_add_up_and_never_go_back() -> None:
    watcher = Watcher()
    meter = Meter(watcher, 300, Clock())
    for n_bytes in (50, 100, 20):  # the last: it proved wrong and began again
        meter.advance(n_bytes)
    meter.finish_file(100)
    meter.advance(30)
    assert [transfer.done_bytes for transfer in watcher.seen] == [50, 100, 100, 100, 130]


def test_a_limit_makes_its_callers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = Clock(), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    limit = RateLimit(100.0, clock)
    limit.take(50)
    limit.take(100)
    clock.now += 60.0  # a stall is not made up for
    limit.take(200)
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000", 1e3),
        ("500k", 5e5),
        ("5M", 5e6),
        ("1.5MB/s", 1.5e6),
        (" 2g ", 2e9),
        ("10KB", 1e4),
        ("7b", 7.0),
    ],
)
def test_rates_as_people_write_them(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-5M", "0", "5X", "nan", "inf", "5 M M", "M"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rate(text)
    assert (
        str(caught.value) == f"a rate must be at least 1 byte a second, written as 500k or 5M, got {text!r}"
    )


def test_a_rate_of_nothing() -> None:
    with pytest.raises(ConfigError, match="at least 1 byte a second, got 0"):
        RateLimit(0)
