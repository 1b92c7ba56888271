"""What is measured, each kind in a file of its own.

A measure runs in the process of one engine: `prepare` once, then `value` once a round. A *fresh* measure
gets a new process for every value, as start and memory need it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Protocol

from benchmarks.measures.decode import Decode
from benchmarks.measures.prefill import Prefill
from benchmarks.measures.requests import Requests
from benchmarks.measures.run import Run
from benchmarks.measures.start import ColdStart, FileSize, PeakMemory

__all__ = ["MEASURES", "Measure", "Run", "find"]


class Measure(Protocol):
    """One row of the table.

    Attributes:
        name: on the command line and in the JSON.
        title: in the table.
        unit: of the values.
        more_is_better: whether the largest value wins.
        is_fresh: every value needs a process of its own.
        context: positions that a prompt and its answer take.
        requests: how many there are at once.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool
    is_fresh: bool
    context: int
    requests: int

    def prepare(self, run: Run) -> None: ...

    def value(self, run: Run) -> float: ...


_ALL: tuple[Measure, ...] = (
    *(Decode(n) for n in (64, 4096, 16384)),
    *(Prefill(n) for n in (64, 512, 2048)),
    *(Requests(n) for n in (8, 32)),
    ColdStart(),
    PeakMemory(),
    FileSize(),
)
MEASURES = {measure.name: measure for measure in _ALL}


def find(patterns: list[str]) -> list[Measure]:
    """Measures by name or pattern (``prefill-*``), in the order of the table.

    Raises:
        ValueError: a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in MEASURES):
            raise ValueError(f"no measure is called {pattern!r}; there are {', '.join(MEASURES)}")
    return [m for name, m in MEASURES.items() if any(fnmatchcase(name, p) for p in patterns)]
