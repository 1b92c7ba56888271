"""Threads that work with the database, and who waits for them: so many, and for so long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from puna.errors import StateError
from puna.server.errors import ApiError
from puna.server.watch.log import log

__all__ = ["Threads"]

T = TypeVar("T")

_MAX_WAITING = (
    192  # a burst may wait, and of 512 requests at once that leaves room for what needs no database
)
_WAIT_S = 10.0


class Threads:
    """Some threads. A database that hangs takes these, but neither the server's other work nor memory."""

    def __init__(self, n: int, name: str) -> None:
        """Prepare to work.

        Args:
            n: how many threads there are at most.
            name: of each.
        """
        self._threads = ThreadPoolExecutor(n, name)
        # The queue is here: in the executor's own stays what nobody wants any more.
        self._turns = asyncio.Semaphore(n)
        self._n_waiting = 0

    async def run(self, work: Callable[[Callable[[], None]], T]) -> T:
        """Have something done in a thread, in its turn.

        Args:
            work: is called with a function that it must call before it changes anything for good; that raises
                where nobody waits any more.

        Raises:
            StateError: too many wait, or it took too long; nothing was changed.
            ApiError: 503, it took too long, and nobody knows whether it was done.
        """
        if self._n_waiting >= _MAX_WAITING:
            raise StateError(f"{self._n_waiting} others wait for the server's state already")
        decided = threading.Lock()  # is taken once: by the work, which is then done, or by who gives up

        def decide() -> None:
            if not decided.acquire(blocking=False):
                raise StateError(f"nobody waits for it any more after {_WAIT_S:g} s")

        try:
            async with asyncio.timeout(_WAIT_S):
                await self._turn()
                running = asyncio.get_running_loop().run_in_executor(self._threads, work, decide)
                running.add_done_callback(self._end_turn)
                return await asyncio.shield(running)
        except TimeoutError as error:
            reason = f"the server's state did not answer for {_WAIT_S:g} s: it hangs, is held or is too busy"
            if decided.acquire(blocking=False):
                raise StateError(f"{reason}; nothing was changed") from error
            log("state_failed", error=f"{reason}; it may be done yet")
            raise ApiError(
                503,
                f"this took longer than {_WAIT_S:g} s, and whether it was kept is not known; look for it, or "
                "try again",
                code="state_unavailable",
            ) from error

    async def close(self) -> None:
        """End, after what is being done."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _turn(self) -> None:
        self._n_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._n_waiting -= 1

    def _end_turn(self, done: asyncio.Future[T]) -> None:
        self._turns.release()
        if not done.cancelled():
            done.exception()  # who waited may be gone, and asyncio would complain that nobody looks at it
