"""Puna and its peers side by side, on random weights of a true shape.

    python -m benchmarks.compare --models MODELS --output RESULTS

makes the model files that are not there yet, runs every measure with every engine that is installed, and
writes results.json, table.md and chart.svg. Rounds go through all engines in turn, so that a drift of the
machine meets all of them. What results.json has of this commit is not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.chart import svg
from benchmarks.engines import ENGINES
from benchmarks.machine import commit_of, describe, load_average
from benchmarks.measures import MEASURES, Measure, find
from benchmarks.model_files import DEFAULT_SHAPE, model_file, offered, sha256
from benchmarks.options import positive
from benchmarks.process import Job, Process
from benchmarks.results import Report, Row, read_report, write_report
from benchmarks.rounds import run_rounds
from benchmarks.table import GROUPS, group_of, markdown
from puna.engine.native import default_threads
from puna.evaluate.chart import number
from puna.evaluate.roofline import stream_read
from puna.evaluate.speed import checkpoint_bytes

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine with a file."""

    engine: str
    format: str
    path: Path

    @property
    def label(self) -> str:
        return f"{self.engine} {self.format}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        measures = find(given.measures)
        kinds = offered(given.shape)
        report = _begin(given)
    except ValueError as error:
        parser.error(str(error))
    load = load_average()
    if load is not None and load > 0.5:
        print(f"the load average is {load:.1f}: wait for a quiet machine, or trust no ratio", flush=True)
    for group in given.formats:
        candidates = list(_candidates(given, group, kinds, report))
        for measure in measures:
            if not given.again and _is_done(report, measure, candidates, given.repeats):
                continue
            rows = measure_all(measure, candidates, report, given.repeats, given.timeout)
            report.put(rows)
            for row in rows:
                print(_line(row, measure), flush=True)
            _write(report, given.output)
    _write(report, given.output)
    print(f"{given.output / 'table.md'}, chart.svg and results.json are written")


def measure_all(
    measure: Measure, candidates: Sequence[Candidate], report: Report, repeats: int, timeout_s: float
) -> list[Row]:
    """All rounds of a measure, as rows of the report."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    where = {"commit": commit_of(), "at": now, "load_average": load_average()}
    rates: list[float] = []

    def read_once() -> None:
        if measure.name.startswith("decode-"):
            rates.append(stream_read(report.threads))

    jobs = [Job(c.engine, str(c.path), measure.name, report.threads, report.seed) for c in candidates]
    outcomes = run_rounds(
        [partial(Process, job, timeout_s) for job in jobs],
        repeats,
        is_fresh=measure.is_fresh,
        before_round=read_once,
    )
    if rates and any("weight_bytes" in outcome.facts for outcome in outcomes):
        report.stream_read[measure.name] = rates
    return [
        Row(measure=measure.name, engine=c.engine, format=c.format, **asdict(outcome), **where)
        for c, outcome in zip(candidates, outcomes, strict=True)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--shape", default=DEFAULT_SHAPE, help="of the model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and prompts")
    parser.add_argument(
        "--measures", nargs="+", default=["*"], metavar="NAME",
        help=f"names or patterns of {', '.join(MEASURES)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES), metavar="NAME",
        help=f"of {', '.join(ENGINES)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--formats", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--repeats", type=positive, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--threads", type=positive, default=default_threads(), help="of every engine (default: all CPUs)"
    )
    parser.add_argument(
        "--timeout", type=positive, default=900, metavar="SECONDS",
        help="for one value or one start of an engine (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure what results.json has already, too")
    return parser


def _begin(given: argparse.Namespace) -> Report:
    """A new report, with the rows of the one that is there."""
    report = Report(shape=given.shape, seed=given.seed, threads=given.threads, machine=describe())
    path = given.output / "results.json"
    if path.exists():
        old = read_report(path)
        if not report.is_same_place(old):
            raise ValueError(
                f"{path} is of another machine, shape, seed or number of threads; choose another --output"
            )
        report.versions, report.missing, report.files = old.versions, old.missing, old.files
        report.stream_read, report.rows = old.stream_read, old.rows
    return report


def _candidates(
    given: argparse.Namespace, group: str, kinds: Sequence[str], report: Report
) -> Iterator[Candidate]:
    """Engines of a group that are installed, with their files; the others are noted in the report."""
    for name in given.engines:
        kind = ENGINES[name]
        wanted = [(f, file) for f, file in kind.files.items() if file in kinds and group_of(f) == group]
        if not wanted:
            continue
        if not kind.is_installed:
            report.missing[name] = f"{kind.distribution} is not installed"
            print(f"{name}: not run, {report.missing[name]}", flush=True)
            continue
        report.versions[name] = kind.version
        report.missing.pop(name, None)
        for format, file in wanted:
            try:
                path = model_file(file, given.shape, given.seed, given.models)
            except ImportError as error:  # of what writes the file
                report.missing[name] = f"its file cannot be made: {error}"
                print(f"{name}: not run, {report.missing[name]}", flush=True)
                continue
            candidate = Candidate(name, format, path)
            # Read once: the checksum, and a warm page cache for whatever comes.
            report.files[candidate.label] = {"bytes": checkpoint_bytes(path), "sha256": sha256(path)}
            yield candidate


def _is_done(report: Report, measure: Measure, candidates: Sequence[Candidate], repeats: int) -> bool:
    rows = [report.row(measure.name, candidate.label) for candidate in candidates]
    commit = commit_of()
    return all(
        row is not None and row.commit == commit and (row.problem or len(row.values) >= repeats)
        for row in rows
    )


def _line(row: Row, measure: Measure) -> str:
    if row.spread is None:
        return f"{row.measure:14} {row.label:22} {row.problem}"
    s = row.spread
    return (
        f"{row.measure:14} {row.label:22} {number(s.median):>7} {measure.unit} "
        f"({number(s.low)} to {number(s.high)})"
    )


def _write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_report(report, folder / "results.json")
    (folder / "table.md").write_text(markdown(report))
    (folder / "chart.svg").write_text(svg(report))


if __name__ == "__main__":
    sys.exit(main())
