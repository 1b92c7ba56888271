"""A report as an SVG chart: a panel a measure, a bar an engine."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.measures import Measure
from benchmarks.results import Report
from benchmarks.table import GROUPS, labels, measures_of, number

__all__ = ["svg"]

_WIDTH, _LABELS, _BAR, _GAP = 760, 190, 16, 4
_PUNA, _PEER, _INK, _PAPER = "#b5532a", "#8fa3ad", "#222222", "#ffffff"


def svg(report: Report) -> str:
    """Draw all groups. Bars of a panel share one scale that begins at zero; lines show the spread."""
    y, body = 34, []
    machine = report.machine
    title = f"{report.shape}, {machine['cpu']}, {report.threads} threads ({machine['isa']})"
    body.append(_text(12, 22, title, "bold"))
    for group in GROUPS:
        columns = labels(report, group)
        for measure in measures_of(report, columns):
            panel, height = _panel(report, measure, columns, y)
            body += panel
            y += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 8}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(report: Report, measure: Measure, columns: Sequence[str], y: int) -> tuple[list[str], int]:
    rows = [report.row(measure.name, label) for label in columns]
    bars = [(row.label, row.spread) for row in rows if row is not None and row.spread is not None]
    if not bars:
        return [], 0
    direction = "more is better" if measure.more_is_better else "less is better"
    body = [_text(12, y + 18, f"{measure.title}, {measure.unit} ({direction})", "bold")]
    scale = (_WIDTH - _LABELS - 90) / max(spread.high for _, spread in bars)
    for i, (label, spread) in enumerate(bars):
        top = y + 26 + i * (_BAR + _GAP)
        middle = top + _BAR / 2
        colour = _PUNA if label.startswith("puna ") else _PEER
        body.append(_text(_LABELS - 8, middle + 4, label, anchor="end"))
        body.append(
            f'<rect x="{_LABELS}" y="{top}" width="{spread.median * scale:.1f}" height="{_BAR}" '
            f'fill="{colour}"/>'
        )
        low, high = _LABELS + spread.low * scale, _LABELS + spread.high * scale
        body.append(f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="{_INK}"/>')
        body.append(_text(high + 6, middle + 4, number(spread.median)))
    return body, 26 + len(bars) * (_BAR + _GAP) + 10


def _text(x: float, y: float, text: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{_INK}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
