"""What was measured, as it lies in ``results.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from puna.evaluate.speed import Spread

__all__ = ["Report", "Row", "read_report", "write_report"]

_VERSION = 1


@dataclass(kw_only=True, slots=True)
class Row:
    """One measure of one engine and format.

    Attributes:
        measure: its name, see `benchmarks.measures`.
        engine: its name, see `benchmarks.engines`.
        format: what the engine calls the format of the weights.
        values: of the rounds, in order.
        problem: why there are no values.
        facts: what the engine said of itself.
        commit: of this repository.
        at: when the measure began, UTC.
        load_average: of the minute before, of everything on the machine.
    """

    measure: str
    engine: str
    format: str
    values: list[float] = field(default_factory=list)
    problem: str | None = None
    facts: dict[str, float] = field(default_factory=dict)
    commit: str = ""
    at: str = ""
    load_average: float | None = None

    @property
    def label(self) -> str:
        return f"{self.engine} {self.format}"

    @property
    def spread(self) -> Spread | None:
        """Median, lowest and highest; None where there are no values."""
        return Spread.of(self.values) if self.values else None


@dataclass(kw_only=True, slots=True)
class Report:
    """Everything of one shape on one machine.

    Attributes:
        shape: of the model.
        seed: its weights are made from.
        threads: of every engine.
        machine: see `benchmarks.machine`.
        versions: of the engines that ran.
        missing: engines that did not, and why.
        files: size and checksum of every model file, by the label of a row.
        stream_read: bytes a second that the machine read, in every round of a measure.
        rows: what was measured.
    """

    shape: str
    seed: int
    threads: int
    machine: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    stream_read: dict[str, list[float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def row(self, measure: str, label: str) -> Row | None:
        return next((r for r in self.rows if r.measure == measure and r.label == label), None)

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows in place of those of the same measure and label."""
        new = list(rows)
        taken = {(row.measure, row.label) for row in new}
        self.rows = [row for row in self.rows if (row.measure, row.label) not in taken] + new

    def is_same_place(self, other: Report) -> bool:
        """Rows of both may stand in one table."""
        place = ("cpu", "usable_cpus", "platform")
        return (self.shape, self.seed, self.threads) == (other.shape, other.seed, other.threads) and all(
            self.machine.get(key) == other.machine.get(key) for key in place
        )


def write_report(report: Report, path: Path) -> None:
    """Write a report in one step."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps({"version": _VERSION, **asdict(report)}, indent=2) + "\n")
    os.replace(unfinished, path)


def read_report(path: Path) -> Report:
    """Read what `write_report` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        raw = json.loads(path.read_text())
        if raw.pop("version") != _VERSION:
            raise ValueError(f"{path} is of another version of the benchmarks; choose another folder")
        return Report(**raw | {"rows": [Row(**row) for row in raw["rows"]]})
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no report of these benchmarks: {error}") from error
