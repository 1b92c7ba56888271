"""How long a request may take: one deadline for all that is computed for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from puna.server.errors import ApiError

__all__ = ["Deadline"]


class Deadline:
    """When a request must be answered, waiting included. To be made and used in a running event loop."""

    def __init__(self, timeout_s: float) -> None:
        """Begin now.

        Args:
            timeout_s: time that the request has.
        """
        self._timeout_s = timeout_s
        self._ends_s = asyncio.get_running_loop().time() + timeout_s

    def call(self, function: Callable[[], object]) -> asyncio.TimerHandle:
        """Have a function called when it is too late, unless that is cancelled."""
        return asyncio.get_running_loop().call_at(self._ends_s, function)

    def limit(self) -> asyncio.Timeout:
        """An ``async with`` block that is left with a TimeoutError when it is too late."""
        return asyncio.timeout_at(self._ends_s)

    def error(self) -> ApiError:
        """What a client is told then."""
        return ApiError(504, f"the answer took longer than {self._timeout_s:g} s", code="timeout")
