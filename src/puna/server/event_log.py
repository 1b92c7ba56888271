"""Events of responses in the background, for clients that come back for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from puna.server.schemas.base import NamedEvent, Written

__all__ = ["EventLog", "EventLogs"]

_KEEP_S = 600.0
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Place:
    log: EventLog
    timer: asyncio.TimerHandle


class EventLog:
    """The events of one response, each as it was sent first; any number of clients read on as they come.

    Attributes:
        n_bytes: what they take.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.n_bytes = 0
        self._events: list[Written] = []
        self._is_over = False
        self._changed = asyncio.Event()

    def add(self, event: NamedEvent) -> None:
        """Take the next event, as it is now."""
        written = Written(event.type, event.as_json())
        self._events.append(written)
        self.n_bytes += len(written.json)
        self._tell()

    def end(self) -> None:
        """Take that none will follow."""
        self._is_over = True
        self._tell()

    async def read(self, start: int) -> AsyncGenerator[Written]:
        """The events from a number on, those to come included."""
        while True:
            changed = self._changed
            while start < len(self._events):
                yield self._events[start]
                start += 1
            if self._is_over:
                return
            if changed is self._changed:  # nothing came while the last ones were sent
                await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class EventLogs:
    """The logs of all responses, those that are over for ten minutes and up to a bound in memory."""

    def __init__(self) -> None:
        """Start with none."""
        self._running: dict[str, EventLog] = {}
        self._over: dict[str, _Place] = {}  # the oldest first

    def begin(self, key: str) -> EventLog:
        """A log for the response of that id."""
        return self._running.setdefault(key, EventLog())

    def find(self, key: str) -> EventLog | None:
        """The log of a response, None where there is none (any more)."""
        over = self._over.get(key)
        return self._running.get(key) or (over.log if over else None)

    def end(self, key: str) -> None:
        """Take that a response is over, if it has a log."""
        log = self._running.pop(key, None)
        if log is None:
            return
        log.end()
        timer = asyncio.get_running_loop().call_later(_KEEP_S, self.forget, key)
        self._over[key] = _Place(log, timer)
        while sum(place.log.n_bytes for place in self._over.values()) > _MAX_BYTES:
            self.forget(next(iter(self._over)))

    def forget(self, key: str) -> None:
        """Drop the log of a response that is over, or of one that was deleted."""
        self._running.pop(key, EventLog()).end()
        place = self._over.pop(key, None)
        if place is not None:
            place.timer.cancel()

    def close(self) -> None:
        """Drop all."""
        for key in [*self._running, *self._over]:
            self.forget(key)
