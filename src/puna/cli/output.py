"""What is printed, and where: answers and results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from puna.errors import ConfigError

__all__ = [
    "duration_text",
    "is_terminal",
    "one_line",
    "print_json",
    "print_rows",
    "print_table",
    "say",
    "size_text",
    "visible",
    "write_text",
]

# Control characters could move the cursor, retitle the window or fill the clipboard. C0 has pictures in
# Unicode; C1 and DEL get the replacement character; a carriage return only ever belongs to a line's end.
_VISIBLE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(0x7F, 0xA0), 0xFFFD),
    ord("\r"): None,
}


def visible(text: str) -> str:
    """Make a text safe for a terminal: no control characters but newline and tab.

    Args:
        text: anything that a model, a file or a server said.
    """
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """A text without line ends, for messages."""
    return " ".join(text.split("\n"))


def say(text: str) -> None:
    """Print a line to stderr, safe for a terminal."""
    typer.echo(visible(text), err=True)


def print_json(value: Any) -> None:
    """Print one JSON document to stdout; other characters than ASCII are escaped.

    Infinity and what is no number are null, as JSON has no words for them.
    """
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(part) for key, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
    return value


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Print labels and what belongs to them in two columns to stdout."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows) + 2
    for label, value in rows:
        typer.echo(visible(f"{label:<{width}}{value}"))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns with their heads to stdout, as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo(visible(line.rstrip()))


def size_text(n_bytes: int) -> str:
    """A size for people, in MB or GB of a thousand: ``143.8 MB``."""
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:,.2f} GB"


def duration_text(seconds: float) -> str:
    """A time for people: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def write_text(path: Path, text: str) -> None:
    """Write a file that a command was asked for, in one step.

    Raises:
        ConfigError: it cannot be written there.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def is_terminal() -> bool:
    """Whether somebody sits at both ends: stdin and stdout are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
