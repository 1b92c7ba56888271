"""Looking after the database while it is in use: what is old goes, and what was deleted leaves the disk."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING

from puna.errors import StateError
from puna.server.errors import ApiError
from puna.server.state import retention
from puna.server.watch.log import log, log_error

if TYPE_CHECKING:
    from puna.server.state.store import State

__all__ = ["Upkeep"]

_SWEEP_S = 3600.0
_DELAY_S = 1.0  # what is deleted meanwhile leaves the disk with it
_AGAIN_S = 30.0  # after something that failed


class Upkeep:
    """Works beside requests: no write waits for more than a piece of it, or fails with it."""

    def __init__(self, store: State, keep_s: float | None) -> None:
        """Prepare to look after a database.

        Args:
            store: the database.
            keep_s: how long chat completions and responses are kept; None: for ever.
        """
        self._store = store
        self._keep_s = keep_s
        self._is_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take that the database is in use: it is looked after at once and then every hour."""
        if self._task is None:
            # In a context of its own: its log lines are not about the request that came first.
            self._task = asyncio.create_task(self._run(), context=Context())

    def want(self) -> None:
        """Take that something was deleted, which is to leave the disk soon."""
        self._is_wanted.set()

    async def close(self) -> None:
        """Stop; SQLite empties its log itself when the last one lets go of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        next_sweep_s = 0.0
        while True:
            await asyncio.sleep(_DELAY_S)
            self._is_wanted.clear()
            wait_s = 0.0  # where somebody still reads what is to go
            try:
                if self._keep_s is not None and time.monotonic() >= next_sweep_s:
                    await self._sweep(self._keep_s)
                    next_sweep_s = time.monotonic() + _SWEEP_S
                if await self._clear():
                    wait_s = _SWEEP_S
            except (ApiError, StateError) as error:
                log("state_failed", error=str(error))
                wait_s = _AGAIN_S
            except Exception as error:  # it must be tried again, whatever it was
                log_error(error)
                wait_s = _AGAIN_S
            # Not `wait_for`, which may lose a cancellation where its time is over just then.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._is_wanted.wait()

    async def _sweep(self, keep_s: float) -> None:
        before = int(time.time() - keep_s)
        for table in retention.FORGOTTEN:
            end = await self._store.read(retention.last, table)
            while end > 0:
                old = await self._store.read(retention.find_old, table, end, before)
                while old:
                    n_done = await self._store.free(retention.forget, old)
                    del old[:n_done]
                end -= retention.SLICE_ROWS

    async def _clear(self) -> bool:
        """Have what was deleted leave the disk; False where somebody still reads it."""
        while await self._store.free(retention.remove_left):
            pass
        while await self._store.free(retention.shrink):
            pass
        return await self._store.maintain(retention.wipe)
