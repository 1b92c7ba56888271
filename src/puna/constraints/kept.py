"""Compiled constraints that wait for the next request, in fair shares between those that they belong to."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["Kept", "Key"]

_MAX_CHARACTERS = 1_048_576
_LEAST_CHARACTERS = 65_536  # for which a short text counts too: 16 are kept at most

Key = tuple[str, str]
"""Whose it is, empty for everybody's, and its text."""


class Kept:
    """The constraints used last, each for its owner alone. Safe to use from several threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._compiled: OrderedDict[Key, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Key) -> LLMatcher | None:
        """One that is kept, now the one used last; None where it is not."""
        with self._lock:
            found = self._compiled.get(key)
            if found is not None:
                self._compiled.move_to_end(key)
            return found

    def add(self, key: Key, compiled: LLMatcher) -> None:
        """Keep one. Where there is no room, whoever has most loses what was not used for longest."""
        with self._lock:
            self._compiled[key] = compiled
            taken: Counter[str] = Counter()
            for owner, text in self._compiled:
                taken[owner] += max(len(text), _LEAST_CHARACTERS)
            while taken.total() > _MAX_CHARACTERS:
                most = max(taken, key=taken.__getitem__)
                oldest = next(each for each in self._compiled if each[0] == most)
                del self._compiled[oldest]
                taken[most] -= max(len(oldest[1]), _LEAST_CHARACTERS)

    def forget(self, key: Key) -> None:
        """Drop one, with the memory that it holds; no effect where it is not kept."""
        with self._lock:
            self._compiled.pop(key, None)
