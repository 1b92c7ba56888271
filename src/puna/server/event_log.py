"""Events of responses in the background, for clients that come back for them; in a bound of memory."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from puna.server.errors import ApiError
from puna.server.schemas.base import NamedEvent, Written

__all__ = ["EventLog", "EventLogs"]

_KEEP_S = 600.0
_MAX_BYTES = 64 * 1024 * 1024
_OBJECT_BYTES = 200  # of an event beside its text


@dataclass(frozen=True, slots=True)
class _Kept:
    order: int
    event: Written
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Place:
    log: EventLog
    timer: asyncio.TimerHandle


class EventLog:
    """The newest events of one response, each as it was sent first; any number of clients read as they come.

    Attributes:
        n_bytes: memory that they take.
        n_dropped: so many older ones there were.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.n_bytes = 0
        self.n_dropped = 0
        self._events: deque[_Kept] = deque()
        self._is_over = False
        self._changed = asyncio.Event()

    @property
    def oldest(self) -> int | None:
        """Order of the oldest event, None where there is none."""
        return self._events[0].order if self._events else None

    def add(self, event: NamedEvent, order: int) -> int:
        """Take the next event, as it is now.

        Args:
            event: it.
            order: by which it is dropped, see `drop`.

        Returns:
            Bytes that it takes.
        """
        written = Written(event.type, event.as_json())
        kept = _Kept(order, written, sys.getsizeof(written.json) + _OBJECT_BYTES)
        self._events.append(kept)
        self.n_bytes += kept.n_bytes
        self._tell()
        return kept.n_bytes

    def drop(self, before: int) -> int:
        """Let go of events.

        Args:
            before: those of a lower order.

        Returns:
            Bytes that they took.
        """
        had = self.n_bytes
        while self._events and self._events[0].order < before:
            self.n_bytes -= self._events.popleft().n_bytes
            self.n_dropped += 1
        return had - self.n_bytes

    def end(self) -> None:
        """Take that none will follow."""
        self._is_over = True
        self._tell()

    async def read(self, start: int) -> AsyncGenerator[Written]:
        """The events from a number on, those to come included.

        Raises:
            ApiError: 400, the next one was dropped.
        """
        while True:
            changed = self._changed
            while start < self.n_dropped + len(self._events):
                if start < self.n_dropped:
                    raise _gone(self.n_dropped - 1, may_go_on=bool(self._events) or not self._is_over)
                yield self._events[start - self.n_dropped].event
                start += 1
            if self._is_over:
                return
            if changed is self._changed:  # nothing came while the last ones were sent
                await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class EventLogs:
    """The logs of all responses, those that are over for ten minutes, and all together up to a bound.

    Where it is reached the oldest events go, whose response's they are. So a client that keeps up misses
    nothing, and one that comes too late is told so.

    Attributes:
        n_bytes: memory that all take.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.n_bytes = 0
        self._n_added = 0
        self._running: dict[str, EventLog] = {}
        self._over: dict[str, _Place] = {}

    def begin(self, key: str) -> EventLog:
        """A log for the response of that id."""
        return self._running.setdefault(key, EventLog())

    def find(self, key: str) -> EventLog | None:
        """The log of a response, None where there is none (any more)."""
        over = self._over.get(key)
        return self._running.get(key) or (over.log if over else None)

    def add(self, key: str, event: NamedEvent) -> None:
        """Take the next event of a response, if it has a log and was not deleted."""
        log = self._running.get(key)
        if log is None:
            return
        self._n_added += 1
        self.n_bytes += log.add(event, self._n_added)
        while self.n_bytes > _MAX_BYTES:
            self._drop_oldest()

    def end(self, key: str) -> None:
        """Take that a response is over, if it has a log."""
        log = self._running.pop(key, None)
        if log is None:
            return
        log.end()
        timer = asyncio.get_running_loop().call_later(_KEEP_S, self.forget, key)
        self._over[key] = _Place(log, timer)

    def forget(self, key: str) -> None:
        """Drop the log of a response that is over, or of one that was deleted."""
        log = self._running.pop(key, None)
        place = self._over.pop(key, None)
        if place is not None:
            place.timer.cancel()
            log = place.log
        if log is not None:
            log.end()
            self.n_bytes -= log.drop(self._n_added + 1)  # whoever still reads it must not hold it

    def close(self) -> None:
        """Drop all."""
        for key in [*self._running, *self._over]:
            self.forget(key)

    def _drop_oldest(self) -> None:
        logs = [*self._running.values(), *(place.log for place in self._over.values())]
        oldest = min(log.oldest for log in logs if log.oldest is not None)
        # A quarter at once: to look for one at each event would hold up everybody.
        before = oldest + (self._n_added - oldest) // 4 + 1
        for log in logs:
            self.n_bytes -= log.drop(before)


def _gone(last: int, *, may_go_on: bool) -> ApiError:
    fetch = "leave `stream` out and fetch all of the response once it is over"
    return ApiError(
        400,
        f"events of this response up to number {last} are not kept any more; "
        + (f"go on behind them with `starting_after={last}`, or {fetch}" if may_go_on else fetch),
        code="events_gone",
        param="starting_after",
    )
