"""Responses that are computed while no client waits for them; `responding.py` has the life of one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress

from puna.errors import StateError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.event_log import EventLogs
from puna.server.hosting.admission import has_share
from puna.server.state.store import State
from puna.server.watch.log import log, log_error

__all__ = ["Background"]

_PULSE_S = 10.0
_AGAIN_S = 3.0  # between two tries to write what came of a response


class Background:
    """Runs them, and says in the database that it still does, for servers that share it.

    Attributes:
        logs: events of those that are streamed.
    """

    def __init__(self, store: State, max_tasks: int) -> None:
        """Prepare to run things.

        Args:
            store: where their results go.
            max_tasks: so many at once, waiting ones included.
        """
        self.logs = EventLogs()
        self._store = store
        self._max_tasks = max_tasks
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._n_places: Counter[str] = Counter()  # by client, those of responses that are about to begin, too
        self._pulse: asyncio.Task[None] | None = None
        self._is_drained = asyncio.Event()

    @property
    def running(self) -> frozenset[str]:
        """Ids of the responses that are being computed now."""
        return frozenset(self._tasks)

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold a place for one more, which is to `run` before the ``with`` block ends.

        Args:
            client: who asks; it leaves places to others, as it does in the queue of a model.

        Raises:
            ApiError: 429, there is none.
        """
        n_taken = self._n_places.total()
        n_left = self._max_tasks - n_taken - 1
        if n_left < 0 or not has_share(self._n_places[client] + 1, n_left):
            raise ApiError(
                429,
                f"{n_taken} responses are computed in the background already",
                code="rate_limit_exceeded",
                headers={"Retry-After": "5"},
            )
        self._n_places[client] += 1
        try:
            yield
        finally:
            self._give_back(client)

    def run(self, key: str, client: str, work: Awaitable[None]) -> None:
        """Begin to compute a response.

        Args:
            key: its id.
            client: whose place it has.
            work: writes what becomes of it; is cancelled where the response is not wanted any more.
        """
        task = asyncio.ensure_future(work)
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))
        self._n_places[client] += 1
        task.add_done_callback(lambda _: self._give_back(client))
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.create_task(self._keep_alive())

    def cancel(self, key: str) -> None:
        """Stop computing a response, if it is this server that does."""
        if key in self._tasks:
            self._tasks[key].cancel()

    def forget(self, key: str) -> None:
        """Stop computing a response that was deleted, and drop its events."""
        self.cancel(key)
        self.logs.forget(key)

    async def may_try_again(self) -> bool:
        """Wait for a while, or till the end of the drain, where the database could not be used.

        Returns:
            False, at once, where the drain has ended already.
        """
        if self._is_drained.is_set():
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                await self._is_drained.wait()
        return True

    def end_drain(self) -> None:
        """Take that the time for what still runs is up: what came of it is written now, or never."""
        self._is_drained.set()

    async def close(self) -> None:
        """Wait until all are through; those that run for too long are cut when the drain ends."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self.logs.close()
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)

    def _give_back(self, client: str) -> None:
        self._n_places[client] -= 1
        if not self._n_places[client]:
            del self._n_places[client]

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        self.logs.end(key)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log_error(error)

    async def _keep_alive(self) -> None:
        while self._tasks:
            await asyncio.sleep(_PULSE_S)
            running = list(self._tasks)
            try:
                wanted = await self._store.write(state.responses.keep_alive, running)
            except (ApiError, StateError) as error:
                log("state_failed", error=str(error))
                continue
            for key in set(running) - wanted:
                self.cancel(key)  # through another server, or deleted
