"""What a fetch tells about itself: what is fetched under which terms, and how far it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Fetch", "Meter", "Progress", "Silent", "Transfer"]

_WINDOW_S = 10.0  # the rate is that of the last seconds, so that a stall shows and a start does not


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    """A model that is about to be fetched.

    Attributes:
        name: what it will be called in the store.
        origin: where it comes from, for people.
        n_bytes: size of the files, what is there already included.
        licence: name of the terms, None where they are not known.
        licence_url: where their text is.
        duties: what they ask, a sentence each.
    """

    name: str
    origin: str
    n_bytes: int
    licence: str | None = None
    licence_url: str | None = None
    duties: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """How far a fetch is.

    Attributes:
        done_bytes: of all files together; never goes back.
        total_bytes: of all files together.
        bytes_per_s: rate of the last seconds, None until it is known.
        remaining_s: time that the rest takes at that rate, None until it is known.
    """

    done_bytes: int
    total_bytes: int
    bytes_per_s: float | None
    remaining_s: float | None


class Progress(Protocol):
    """Is told how a fetch gets on; the command line prints it."""

    def begin(self, fetch: Fetch) -> None:
        """A model is about to be fetched; told once for each, before any of its weights."""
        ...

    def step(self, text: str) -> None:
        """What is being done from now on, in a few words."""
        ...

    def advance(self, transfer: Transfer) -> None:
        """How far the download is."""
        ...


class Silent:
    """Progress that nobody looks at."""

    def begin(self, fetch: Fetch) -> None:
        """Ignore it."""

    def step(self, text: str) -> None:
        """Ignore it."""

    def advance(self, transfer: Transfer) -> None:
        """Ignore it."""


class Meter:
    """Adds up the bytes of several files and works out rate and remaining time."""

    def __init__(
        self, progress: Progress, total_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start at nothing.

        Args:
            progress: is told.
            total_bytes: of all files.
            clock: seconds; for tests.
        """
        self._progress = progress
        self._total = total_bytes
        self._clock = clock
        self._finished = 0
        self._done = 0
        self._history: deque[tuple[float, int]] = deque()

    def advance(self, file_bytes: int) -> None:
        """So many bytes of the present file are there."""
        # A file that proved wrong starts again, and the sum waits until it is where it was.
        self._done = max(self._done, self._finished + file_bytes)
        now = self._clock()
        self._history.append((now, self._done))
        while now - self._history[0][0] > _WINDOW_S:
            self._history.popleft()
        rate = self._rate()
        self._progress.advance(
            Transfer(
                done_bytes=self._done,
                total_bytes=self._total,
                bytes_per_s=rate,
                remaining_s=(self._total - self._done) / rate if rate else None,
            )
        )

    def finish_file(self, file_bytes: int) -> None:
        """The present file is whole; the next bytes belong to another."""
        self.advance(file_bytes)
        self._finished += file_bytes

    def _rate(self) -> float | None:
        (first_s, first), (last_s, last) = self._history[0], self._history[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None
