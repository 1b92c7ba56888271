"""A report as an SVG chart: a panel a measure, a bar an engine."""

from __future__ import annotations

from benchmarks.measures import Measure
from benchmarks.results import Report
from benchmarks.table import GROUPS, labels, measures_of
from puna.evaluate import chart
from puna.evaluate.chart import Bar, Panel

__all__ = ["svg"]


def svg(report: Report) -> str:
    """Draw all groups. Bars of a panel share one scale that begins at zero; lines show the spread."""
    machine = report.machine
    title = f"{report.shape}, {machine['cpu']}, {report.threads} threads ({machine['isa']})"
    panels = []
    for group in GROUPS:
        columns = labels(report, group)
        panels += [_panel(report, measure, columns) for measure in measures_of(report, columns)]
    return chart.svg(title, panels)


def _panel(report: Report, measure: Measure, columns: list[str]) -> Panel:
    rows = [report.row(measure.name, label) for label in columns]
    direction = "more is better" if measure.more_is_better else "less is better"
    return Panel(
        f"{measure.title}, {measure.unit} ({direction})",
        [Bar(row.label, row.spread, row.label.startswith("puna ")) for row in rows if row and row.spread],
    )
