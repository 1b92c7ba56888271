"""What takes long beside the models: to read long conversations that are kept, to turn texts into tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from puna.server.errors import ApiError
from puna.server.hosting.admission import Admission

__all__ = ["Preparation"]

T = TypeVar("T")

# Python computes one thing at a time, however many threads want to. Two long conversations at once take as
# long as one after the other, need twice the memory, and the event loop waits twice as long in between.
_MAX_RUNNING = 1
_MAX_WAITING = 256
_MAX_WAIT_S = 30
_USUAL_S = 0.01


class Preparation:
    """Lets one request at a time do it; others wait as answers do. To be used from one event loop."""

    def __init__(self) -> None:
        """Start with nothing running."""
        self._queue = Admission(
            _MAX_RUNNING,
            block_tokens=1,
            max_running=_MAX_RUNNING,
            max_waiting=_MAX_WAITING,
            max_wait_s=_MAX_WAIT_S,
            what="requests",
            usual_s=_USUAL_S,
        )

    async def run(self, client: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do something in a turn, of which it may not want another.

        Args:
            client: who asks, for fair turns.
            work: begins it.

        Returns:
            What came of it.

        Raises:
            ApiError: 429, too many wait already; 503, the server is shutting down; or what `work` raises.
        """
        try:
            async with asyncio.timeout(_MAX_WAIT_S):  # a database that hangs makes turns longer than expected
                turn = await self._queue.wait(client, 1)
        except TimeoutError:
            raise ApiError(
                429,
                f"the server is busy: no turn came within {_MAX_WAIT_S} s; try again later",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(_MAX_WAIT_S)},
            ) from None
        # Who goes away does not end a thread, and so must not end its turn.
        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda _: self._queue.end(turn))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Send away those that wait, and those that come."""
        self._queue.close()
