"""The queue in front of one engine: bounded in length and time, fair between clients, memory set aside.

An answer starts when the cache has room for all that it may come to need, so nothing that runs is ever
stopped for memory. Of those that wait, the client goes first that has the least running, by turns where that
says nothing; the answers of one client go in their order. Nobody fills the whole queue: a client has at most
three times as many places as it leaves to others.

A burst may wait. Those that are sent away are told to come back one after the other, when their turn is
expected. A client counts once among those; what else of it is sent away is held against itself alone. While
more clients are to come back than may wait, or more of one client's own, that is overload, for all or for
that one: nobody waits for longer then than it takes from a turn to the first token.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from puna.server.errors import ApiError, shutting_down

__all__ = ["Admission", "Turn", "has_share"]

_LONGEST_ADVICE_S = 60
_REST = 0.25  # of the usual time of an answer, for one that takes longer
_NEW = 0.2  # what the latest answer counts among those before it
_SHARE = 3  # of what a client may have, for each that it leaves to others
_PRESENT = 0.5  # of those sent away, who count as coming back: no place is to lie idle for want of them


@dataclass(eq=False, slots=True)
class _Ticket:
    client: str
    n_tokens: int
    turn: asyncio.Future[None]


@dataclass(eq=False, slots=True)
class Turn:
    """An answer that runs.

    Attributes:
        client: whose it is.
        n_tokens: cache positions that it holds, whole blocks.
        started_s: since when, by the monotonic clock.
        is_silent: no token of it has come yet.
    """

    client: str
    n_tokens: int
    started_s: float = field(default_factory=lambda: time.monotonic())
    is_silent: bool = True


def has_share(n_own: int, n_left: int) -> bool:
    """Whether a client leaves enough to others.

    Args:
        n_own: places that it would have.
        n_left: places that would be left to them then.
    """
    return n_own <= _SHARE * (max(n_left, 0) + 1)


class Admission:
    """Lets answers run. To be used from one event loop.

    Attributes:
        is_closed: nobody gets a turn any more.
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
        max_wait_s: float,
        what: str = "answers",
        usual_s: float = 1.0,
    ) -> None:
        """Start with nothing running.

        Args:
            capacity_tokens: positions of the cache.
            block_tokens: positions are given out in blocks of so many.
            max_running: answers at once.
            max_waiting: answers that may wait.
            max_wait_s: an answer may wait where its turn is expected within that time.
            what: has turns, for messages.
            usual_s: how long one runs, before any has told.
        """
        self._capacity = capacity_tokens
        self._block_tokens = block_tokens
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._what = what
        self._waiting: dict[str, deque[_Ticket]] = {}
        self._reserved_by: Counter[str] = Counter()
        self._mean_s = usual_s  # how long an answer runs, of late
        self._first_s = 1.0  # and until its first token
        self._turns: set[Turn] = set()
        self._has_room = True  # the cache, for the one that asks just now
        # A heap: when, and whose, those sent away are to come back; whether that counts among all.
        self._returns: list[tuple[float, str, bool]] = []
        self._returning: set[str] = set()  # clients: each once, or who knocks often would keep out all others
        self._n_own_returns: Counter[str] = Counter()  # of a client, besides
        self.is_closed = False
        self.n_running = 0
        self.n_waiting = 0
        self.n_refused = 0
        self.reserved_tokens = 0

    def is_full(self, client: str) -> bool:
        """Whether not even one more answer of a client could wait."""
        return not self._may_wait(client, 1)

    def check(self, client: str, n_answers: int) -> None:
        """Refuse at once what could not even wait.

        Args:
            client: who asks.
            n_answers: how many the request wants.

        Raises:
            ApiError: 429, with the seconds after which to try again; 400, there is never room for so many.
        """
        # As many places in the queue as one client can have, by `_has_share`.
        most = self._max_running + _SHARE * (self._max_waiting + 1) // (_SHARE + 1)
        if n_answers > most:
            raise ApiError(
                400, f"a request may ask for {most} answers at once, got {n_answers}; ask for fewer"
            )
        if not self._may_wait(client, n_answers):
            self.n_refused += 1
            after = self._advice_s(client, n_answers)
            raise ApiError(
                429,
                f"the server is busy: {self.n_waiting} {self._what} wait already; try again in {after} s",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(after)},
            )

    def close(self) -> None:
        """Send away those that wait, and those that come."""
        self.is_closed = True
        for ticket in [ticket for tickets in self._waiting.values() for ticket in tickets]:
            if not ticket.turn.cancelled():
                self._drop(ticket)
                ticket.turn.set_exception(shutting_down())

    @asynccontextmanager
    async def reserve(self, client: str, n_tokens: int) -> AsyncIterator[Turn]:
        """A turn for an ``async with`` block, see `wait`."""
        turn = await self.wait(client, n_tokens)
        try:
            yield turn
        finally:
            self.end(turn)

    def take(self, client: str, n_tokens: int) -> Turn | None:
        """A turn, which holds cache positions until its `end`; None where there is no room for it now.

        Args:
            client: who asks.
            n_tokens: positions of the prompt and its longest possible answer.

        Raises:
            ApiError: 400, it could never fit; 503, the server is shutting down.
        """
        n_tokens = self._in_blocks(n_tokens)
        if self.n_waiting or not self._fits(n_tokens):
            return None
        self._hold(client, n_tokens)
        return self._turn(client, n_tokens)

    async def wait(self, client: str, n_tokens: int) -> Turn:
        """Wait for a turn, see `take`.

        Raises:
            ApiError: as `take`, and 429 where too many wait.
        """
        turn = self.take(client, n_tokens)
        if turn is None:
            n_tokens = self._in_blocks(n_tokens)
            await self._wait(client, n_tokens)
            turn = self._turn(client, n_tokens)
        return turn

    def end(self, turn: Turn) -> None:
        """Give back what a turn holds."""
        self._turns.remove(turn)
        self._mean_s += _NEW * (time.monotonic() - turn.started_s - self._mean_s)
        self._release(turn.client, turn.n_tokens)

    def _in_blocks(self, n_tokens: int) -> int:
        """Positions that so many take; an error where nobody gets them any more."""
        if self.is_closed:
            raise shutting_down()
        if n_tokens > self._capacity:
            raise ApiError(
                400,
                f"the prompt and its answer may take {n_tokens} tokens and the cache holds {self._capacity}; "
                "lower `max_tokens`",
                code="context_length_exceeded",
            )
        return -(-n_tokens // self._block_tokens) * self._block_tokens

    def _turn(self, client: str, n_tokens: int) -> Turn:
        turn = Turn(client, n_tokens)
        self._turns.add(turn)
        return turn

    def on_token(self, turn: Turn) -> None:
        """Take that tokens of an answer have come; only the first ones matter."""
        if turn.is_silent:
            turn.is_silent = False
            self._first_s += _NEW * (time.monotonic() - turn.started_s - self._first_s)

    @property
    def _n_free(self) -> int:
        """Places for answers that need not wait."""
        return max(0, self._max_running - self.n_running) if self._has_room and not self.n_waiting else 0

    def _may_wait(self, client: str, n_answers: int) -> bool:
        if n_answers <= self._n_free:
            return True
        self._forget_returned()
        if self._n_left(n_answers) < 0 or not self._has_share(client, n_answers):
            return False
        is_overload = max(self._n_own_returns[client], len(self._returning)) > self._max_waiting
        if is_overload and self._expected_wait_s(client, 1) > self._first_s:
            return False
        return self._expected_wait_s(client, n_answers) <= self._max_wait_s

    def _forget_returned(self) -> None:
        now = time.monotonic()
        while self._returns and self._returns[0][0] <= now:
            _, client, is_among_all = heapq.heappop(self._returns)
            if is_among_all:
                self._returning.remove(client)
                continue
            self._n_own_returns[client] -= 1
            if not self._n_own_returns[client]:
                del self._n_own_returns[client]

    def _advice_s(self, client: str, n_answers: int) -> int:
        """After how many seconds to come back: behind those that wait and those that were told so before."""
        n_before = _PRESENT * (self._n_own_returns[client] + len(self._returning))
        after_s = self._expected_wait_s(client, n_answers) + n_before * self._mean_s / self._max_running
        after = min(_LONGEST_ADVICE_S, max(1, math.ceil(after_s)))
        is_among_all = client not in self._returning and not self._is_to_blame(client, n_answers)
        if is_among_all:
            self._returning.add(client)
        else:
            self._n_own_returns[client] += 1
        heapq.heappush(self._returns, (time.monotonic() + after, client, is_among_all))
        return after

    def _is_to_blame(self, client: str, n_answers: int) -> bool:
        """Whether a client that is sent away has more than its share itself, of the queue or of what runs."""
        own = self._reserved_by[client]
        return not self._has_share(client, n_answers) or own >= _SHARE * (self.reserved_tokens - own)

    def _n_left(self, n_answers: int) -> int:
        """Places that so many more leave in the queue; less than 0 where they have none themselves."""
        return self._max_waiting - self.n_waiting - (n_answers - self._n_free)

    def _has_share(self, client: str, n_answers: int) -> bool:
        n_own = self._n_waiting_of(client) + n_answers - self._n_free
        return has_share(n_own, self._n_left(n_answers))

    def _n_waiting_of(self, client: str) -> int:
        return len(self._waiting.get(client, ()))

    def _n_others_before(self, client: str, n_answers: int) -> int:
        """Answers of others that have their turn before the last of so many more of a client's."""
        n_own, reserved = self._n_waiting_of(client) + n_answers, self._reserved_by[client]
        return sum(
            # By turns, but who has less running goes first with all that it has.
            len(tickets) if self._reserved_by[name] < reserved else min(len(tickets), n_own)
            for name, tickets in self._waiting.items()
            if name != client
        )

    def _expected_wait_s(self, client: str, n_answers: int) -> float:
        """When the last of so many more gets its turn: when as many have ended as wait before it."""
        before = self._n_others_before(client, n_answers) + self._n_waiting_of(client)
        before += n_answers - self._n_free - 1
        # Who runs for longer than most may end at any moment, or not for a while.
        now, least_s = time.monotonic(), self._mean_s * _REST
        left_s = [max(self._mean_s - (now - turn.started_s), least_s) for turn in self._turns]
        left_s = sorted(left_s + [self._mean_s] * self._n_free)  # the first of them start now
        if not left_s:
            return before * self._mean_s
        rounds, place = divmod(before, len(left_s))
        return left_s[place] + rounds * self._mean_s

    async def _wait(self, client: str, n_tokens: int) -> None:
        self._has_room = False
        try:
            self.check(client, 1)
        finally:
            self._has_room = True
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

    def _hold(self, client: str, n_tokens: int) -> None:
        self.n_running += 1
        self.reserved_tokens += n_tokens
        self._reserved_by[client] += n_tokens

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
            client = min(self._waiting, key=lambda name: self._reserved_by[name])
            ticket = self._waiting[client][0]
            # Who is leaving takes itself out, in a moment, and then calls here again.
            if ticket.turn.cancelled() or not self._fits(ticket.n_tokens):
                return
            self._drop(ticket)
            if client in self._waiting:  # the others of as many come first now
                self._waiting[client] = self._waiting.pop(client)
            self._hold(ticket.client, ticket.n_tokens)
            ticket.turn.set_result(None)
