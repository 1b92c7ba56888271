"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measures import MEASURES, Measure
from benchmarks.random_checkpoint import SHAPES
from benchmarks.results import Report, Row
from puna.evaluate.chart import number
from puna.evaluate.speed import Spread

__all__ = ["GROUPS", "best_peer", "group_of", "labels", "markdown", "measures_of"]

# Formats that are compared with each other.
GROUPS = {"4-bit": ("int4", "Q4_0", "8da4w", "Q4_1"), "bf16": ("bf16", "BF16")}


def group_of(format: str) -> str:
    return next(group for group, formats in GROUPS.items() if format in formats)


def labels(report: Report, group: str) -> list[str]:
    """Columns of a group's table, Puna first."""
    found = dict.fromkeys(row.label for row in report.rows if row.format in GROUPS[group])
    return sorted(found, key=lambda label: not label.startswith("puna "))


def measures_of(report: Report, columns: Sequence[str]) -> list[Measure]:
    """Measures that a group has rows of, in the order of the table."""
    return [m for name, m in MEASURES.items() if any(report.row(name, label) for label in columns)]


def best_peer(report: Report, measure: Measure, columns: Sequence[str]) -> Row | None:
    """The best of those that are not Puna, by the median."""
    rows = [report.row(measure.name, label) for label in columns if not label.startswith("puna ")]
    told = [(row.spread.median, row) for row in rows if row is not None and row.spread is not None]
    if not told:
        return None
    best = max if measure.more_is_better else min
    return best(told, key=lambda pair: pair[0])[1]


def markdown(report: Report) -> str:
    """The whole page: a table a group of formats, what follows from them, and where they are from."""
    parts = [_heading(report)]
    for group in GROUPS:
        columns = labels(report, group)
        if columns:
            parts.append(_group_table(report, group, columns))
    parts += [_quantized_over_bf16(report), _roofline(report), _notes(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: Report) -> str:
    machine = report.machine
    memory = machine.get("memory_bytes")
    room = f", {memory / 2**30:.0f} GiB" if memory else ""
    return (
        f"# {report.shape}\n\n"
        f"{machine['cpu']}, {machine['usable_cpus']} CPUs{room}, {machine['platform']}; {report.threads} "
        f"threads, Puna's kernels for {machine['isa']}. Medians over rounds that go through all engines in "
        "turn; lowest to highest in brackets. Speeds are tokens a second."
    )


def _group_table(report: Report, group: str, columns: Sequence[str]) -> str:
    head = ["", *columns, "Puna over the best peer"]
    lines = [f"## {group}", "", _line(head), _line(["---"] * len(head))]
    for measure in measures_of(report, columns):
        rows = [report.row(measure.name, label) for label in columns]
        cells = [_cell(row) for row in rows]
        lines.append(_line([f"{measure.title}, {measure.unit}", *cells, _ratio(report, measure, columns)]))
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.spread is None:
        return "failed" if row.problem and not row.problem.startswith("unsupported") else "no"
    return _spread(row.spread)


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)}-{number(spread.high)})"


def _ratio(report: Report, measure: Measure, columns: Sequence[str]) -> str:
    ours = report.row(measure.name, columns[0]) if columns[0].startswith("puna ") else None
    peer = best_peer(report, measure, columns)
    if ours is None or ours.spread is None or peer is None or peer.spread is None:
        return ""
    return f"{ours.spread.median / peer.spread.median:.2f}x"


def _quantized_over_bf16(report: Report) -> str:
    lines = []
    for name, measure in MEASURES.items():
        rows = [report.row(name, label) for label in ("puna int4", "puna bf16")]
        four, sixteen = (row.spread if row is not None else None for row in rows)
        if four and sixteen:
            lines.append(_line([measure.title, f"{four.median / sixteen.median:.2f}x"]))
    if not lines:
        return ""
    return "\n".join(["## Puna's int4 over its bf16", "", "| | |", "|---|---|", *lines])


def _roofline(report: Report) -> str:
    """How near decoding comes to reading its bytes at the rate of a plain read, round by round."""
    lines = []
    for name, rates in report.stream_read.items():
        for row in report.rows:
            if row.measure != name or not row.values or "weight_bytes" not in row.facts:
                continue
            n_prompt = int(name.removeprefix("decode-"))
            bytes_read = row.facts["weight_bytes"] + n_prompt * row.facts["cache_bytes"]
            shares = [v * bytes_read / rate for v, rate in zip(row.values, rates, strict=False)]
            share = Spread.of(shares)
            cells = [
                row.label, MEASURES[name].title, f"{bytes_read / 1e6:,.0f}",
                _spread(Spread.of([rate / 1e9 for rate in rates])),
                number(Spread.of(rates).median / bytes_read),
                f"{share.median:.0%} ({share.low:.0%}-{share.high:.0%})",
            ]  # fmt: skip
            lines.append(_line(cells))
    if not lines:
        return ""
    head = ["", "", "MB a token", "streaming read, GB/s", "limit, tok/s", "reached"]
    return "\n".join(["## Roofline", "", _line(head), _line(["---"] * len(head)), *lines])


def _notes(report: Report) -> str:
    lines = [f"{name} {version}" for name, version in report.versions.items()]
    notes = [f"Versions: {', '.join(lines)}."] if lines else []
    commits = dict.fromkeys(row.commit for row in report.rows)
    notes.append(f"Commit: {', '.join(commits)}.")
    if report.shape in SHAPES:
        notes.append(f"Weights: random, from seed {report.seed}.")
    loads = [row.load_average for row in report.rows if row.load_average is not None]
    if loads:
        notes.append(f"Load average at the beginning of a measure: {min(loads):.1f} to {max(loads):.1f}.")
    notes += [f"{name}: not run, {reason}." for name, reason in report.missing.items()]
    notes += [f"{row.label}, {row.measure}: {row.problem}." for row in report.rows if row.problem]
    return "\n".join(f"- {note}" for note in notes)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
