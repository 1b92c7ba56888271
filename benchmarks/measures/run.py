"""What a measure has to work with: the engine of this process and prompts."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from benchmarks.engines import Engine

# Ordinary tokens of every vocabulary that is measured: no byte tokens, no special ones.
_TOKENS = range(1000, 40_000)


class Run:
    """One process of one engine.

    Attributes:
        path: the model file or folder.
        started: when the process was asked for, in seconds of `time.monotonic`.
    """

    def __init__(self, path: Path, started: float, load: Callable[[], Engine], seed: int) -> None:
        """Nothing is loaded before `engine` is first used."""
        self.path = path
        self.started = started
        self._load = load
        self._pick = random.Random(seed)

    @cached_property
    def engine(self) -> Engine:
        return self._load()

    def prompt(self, n: int) -> list[int]:
        """A new prompt of `n` tokens; the n-th one is the same for every engine."""
        return self._pick.choices(_TOKENS, k=n)
