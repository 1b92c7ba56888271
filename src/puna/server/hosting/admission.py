"""The queue in front of one engine: bounded in length and time, fair between clients, memory set aside.

An answer starts when the cache has room for all that it may come to need, so nothing that runs is ever
stopped for memory. Of those that wait, the client goes first that has the least running; the answers of one
client go in their order.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from puna.server.errors import ApiError

__all__ = ["Admission"]

_LONGEST_ADVICE_S = 60
_REST = 0.25  # of the usual time of an answer, for one that takes longer


@dataclass(eq=False, slots=True)
class _Ticket:
    client: str
    n_tokens: int
    turn: asyncio.Future[None]


class Admission:
    """Lets answers run. To be used from one event loop.

    Attributes:
        n_running: answers that run.
        n_waiting: answers that wait.
        n_refused: requests that were sent away since there were too many.
        reserved_tokens: cache positions set aside for those that run.
    """

    def __init__(
        self,
        capacity_tokens: int,
        *,
        block_tokens: int,
        max_running: int,
        max_waiting: int,
        max_wait_s: float = math.inf,
    ) -> None:
        """Start with nothing running.

        Args:
            capacity_tokens: positions of the cache.
            block_tokens: positions are given out in blocks of so many.
            max_running: answers at once.
            max_waiting: answers that may wait.
            max_wait_s: an answer may wait where its turn is expected within that time.
        """
        self._capacity = capacity_tokens
        self._block_tokens = block_tokens
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._waiting: dict[str, deque[_Ticket]] = {}
        self._reserved_by: dict[str, int] = {}
        self._mean_s = 1.0  # how long an answer runs, of late
        self._started_s: list[float] = []  # when those that run began
        self.n_running = 0
        self.n_waiting = 0
        self.n_refused = 0
        self.reserved_tokens = 0

    @property
    def is_full(self) -> bool:
        """Whether not even one more answer could wait."""
        return not self._may_wait(1)

    def check(self, n_answers: int) -> None:
        """Refuse at once what could not even wait.

        Args:
            n_answers: how many the request wants.

        Raises:
            ApiError: 429, with the seconds after which to try again; 400, there is never room for so many.
        """
        most = self._max_running + self._max_waiting
        if n_answers > most:
            raise ApiError(
                400, f"a request may ask for {most} answers at once, got {n_answers}; ask for fewer"
            )
        if not self._may_wait(n_answers):
            self.n_refused += 1
            after = min(_LONGEST_ADVICE_S, max(1, math.ceil(self._expected_wait_s(n_answers))))
            raise ApiError(
                429,
                f"the server is busy: {self.n_waiting} answers wait already; try again in {after} s",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(after)},
            )

    def close(self) -> None:
        """Send away those that wait."""
        error = ApiError(503, "the server is shutting down; ask another, or later", code="shutting_down")
        for ticket in [ticket for tickets in self._waiting.values() for ticket in tickets]:
            if not ticket.turn.cancelled():
                self._drop(ticket)
                ticket.turn.set_exception(error)

    @asynccontextmanager
    async def reserve(self, client: str, n_tokens: int) -> AsyncIterator[None]:
        """Wait for a turn and hold cache positions during an ``async with`` block.

        Args:
            client: who asks.
            n_tokens: positions of the prompt and its longest possible answer.

        Raises:
            ApiError: 400, it could never fit; 429 where too many wait.
        """
        if n_tokens > self._capacity:
            raise ApiError(
                400,
                f"the prompt and its answer may take {n_tokens} tokens and the cache holds {self._capacity}; "
                "lower `max_tokens`",
                code="context_length_exceeded",
            )
        n_tokens = -(-n_tokens // self._block_tokens) * self._block_tokens
        await self._wait(client, n_tokens)
        started_s = time.monotonic()
        self._started_s.append(started_s)
        try:
            yield
        finally:
            self._started_s.remove(started_s)
            self._mean_s += 0.2 * (time.monotonic() - started_s - self._mean_s)
            self._release(client, n_tokens)

    @property
    def _n_free(self) -> int:
        """Places for answers that need not wait."""
        return max(0, self._max_running - self.n_running) if not self.n_waiting else 0

    def _may_wait(self, n_answers: int) -> bool:
        if n_answers <= self._n_free:
            return True
        has_place = self.n_waiting + n_answers - self._n_free <= self._max_waiting
        return has_place and self._expected_wait_s(n_answers) <= self._max_wait_s

    def _expected_wait_s(self, n_answers: int) -> float:
        """When the last of so many more would get its turn: when as many have ended as wait before it."""
        now, before = time.monotonic(), self.n_waiting + n_answers - self._n_free - 1
        # Who runs for longer than most may end at any moment, or not for a while.
        least_s = self._mean_s * _REST
        left_s = [max(self._mean_s - (now - started_s), least_s) for started_s in self._started_s]
        left_s = sorted(left_s + [self._mean_s] * self._n_free)  # the first of them start now
        if not left_s:
            return before * self._mean_s
        rounds, place = divmod(before, len(left_s))
        return left_s[place] + rounds * self._mean_s

    async def _wait(self, client: str, n_tokens: int) -> None:
        if not self.n_waiting and self._fits(n_tokens):
            self._take(client, n_tokens)
            return
        self.check(1)
        ticket = _Ticket(client, n_tokens, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(client, deque()).append(ticket)
        self.n_waiting += 1
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket.turn.cancelled():
                self._drop(ticket)
                self._admit()
            elif ticket.turn.exception() is None:  # its turn had come in the same moment
                self._release(client, n_tokens)
            raise

    def _fits(self, n_tokens: int) -> bool:
        has_place = self.n_running < self._max_running
        return has_place and self.reserved_tokens + n_tokens <= self._capacity

    def _take(self, client: str, n_tokens: int) -> None:
        self.n_running += 1
        self.reserved_tokens += n_tokens
        self._reserved_by[client] = self._reserved_by.get(client, 0) + n_tokens

    def _release(self, client: str, n_tokens: int) -> None:
        self.n_running -= 1
        self.reserved_tokens -= n_tokens
        self._reserved_by[client] -= n_tokens
        if not self._reserved_by[client]:
            del self._reserved_by[client]
        self._admit()

    def _drop(self, ticket: _Ticket) -> None:
        tickets = self._waiting[ticket.client]
        tickets.remove(ticket)
        if not tickets:
            del self._waiting[ticket.client]
        self.n_waiting -= 1

    def _admit(self) -> None:
        """Give turns while there is room; who is next is not passed by for want of it."""
        while self._waiting:
            client = min(self._waiting, key=lambda name: self._reserved_by.get(name, 0))
            ticket = self._waiting[client][0]
            # Who is leaving takes itself out, in a moment, and then calls here again.
            if ticket.turn.cancelled() or not self._fits(ticket.n_tokens):
                return
            self._drop(ticket)
            self._take(ticket.client, ticket.n_tokens)
            ticket.turn.set_result(None)
