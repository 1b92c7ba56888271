"""Bars as an SVG file, drawn without a library: `svg`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from puna.evaluate.speed import Spread

__all__ = ["Bar", "Panel", "number", "svg"]

_WIDTH, _LABELS, _BAR, _GAP = 760, 190, 16, 4
_OURS, _OTHER, _INK, _PAPER = "#b5532a", "#8fa3ad", "#222222", "#ffffff"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: what stands before it.
        spread: its length, and the line over its end.
        is_ours: drawn in the stronger colour.
    """

    label: str
    spread: Spread
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale, which begins at zero.

    Attributes:
        title: what they measure, with its unit.
        bars: the highest first.
    """

    title: str
    bars: Sequence[Bar]


def number(value: float) -> str:
    """Three digits or more, and no more than needed: 7.31, 30.4, 458, 1,119."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def svg(title: str, panels: Iterable[Panel]) -> str:
    """Draw panels below one another.

    Args:
        title: stands above them.
        panels: those without bars are left out.

    Returns:
        The file's text.
    """
    y, body = 34, [_text(12, 22, title, "bold")]
    for panel in panels:
        if panel.bars:
            body += _panel(panel, y)
            y += 36 + len(panel.bars) * (_BAR + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 8}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(panel: Panel, y: int) -> list[str]:
    body = [_text(12, y + 18, panel.title, "bold")]
    longest = max(bar.spread.high for bar in panel.bars)
    scale = (_WIDTH - _LABELS - 90) / longest if longest > 0 else 0.0
    for i, bar in enumerate(panel.bars):
        spread, top = bar.spread, y + 26 + i * (_BAR + _GAP)
        middle = top + _BAR / 2
        body.append(_text(_LABELS - 8, middle + 4, bar.label, anchor="end"))
        body.append(
            f'<rect x="{_LABELS}" y="{top}" width="{spread.median * scale:.1f}" height="{_BAR}" '
            f'fill="{_OURS if bar.is_ours else _OTHER}"/>'
        )
        low, high = _LABELS + spread.low * scale, _LABELS + spread.high * scale
        body.append(f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="{_INK}"/>')
        body.append(_text(high + 6, middle + 4, number(spread.median)))
    return body


def _text(x: float, y: float, text: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{_INK}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
