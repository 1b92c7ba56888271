"""Clients that go away while something is done for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect, Request

from puna.server.errors import ApiError

__all__ = ["UnlessGone"]


class UnlessGone:
    """Ends an ``async with`` block once the client goes away, with `ClientDisconnect`.

    The block stays in its own task: in another one the first token would take two more rounds of the loop.
    """

    def __init__(self, request: Request) -> None:
        """Prepare a block.

        Args:
            request: the client's, its body read.
        """
        self._request = request
        self._is_gone = False

    async def __aenter__(self) -> Self:
        """See ``async with``."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in one
        self._task, self._n_cancelled = task, task.cancelling()
        self._watching = task.get_loop().create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See ``async with``."""
        self._watching.cancel()
        # Whoever else wants this task to end, does so still.
        if self._is_gone and self._task.uncancel() <= self._n_cancelled and kind is asyncio.CancelledError:
            raise ClientDisconnect from error

    async def _watch(self) -> None:
        with suppress(ApiError):  # a body that nobody asked for does not come: then nobody waits, either
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
        self._is_gone = True
        self._task.cancel()
