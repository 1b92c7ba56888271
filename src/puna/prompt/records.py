"""Objects from files as people keep texts, conversations and questions: JSON lines, or a list in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.errors import ConfigError

__all__ = ["LINES", "OBJECTS", "read_objects", "read_utf8"]

LINES = (".jsonl", ".ndjson")
"""Endings, in small letters, of files with a line of JSON an object."""
OBJECTS = (*LINES, ".json")
"""Endings of files that hold objects, one way or the other."""


def read_objects(path: Path) -> Iterator[tuple[str, Any]]:
    """What is in a file of objects, and where each is, for messages.

    Args:
        path: a ``.json`` file with a list, whatever the case of its ending; any other is read line by line.

    Yields:
        File and line, or file and number, and what JSON has there; empty lines are left out.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, not JSON, or no list.
    """
    text = read_utf8(path)
    if path.suffix.lower() == ".json":
        found = _parsed(str(path), text)
        if not isinstance(found, list):
            raise ConfigError(
                f"{path} must hold a list of objects, got {type(found).__name__}; put one a line in a .jsonl "
                "file, or all into a list"
            )
        yield from ((f"{path}, object {n}", value) for n, value in enumerate(found, 1))
        return
    # JSON leaves other ends of lines as they are within strings, U+2028 for one.
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {n}"
            yield where, _parsed(where, line)


def read_utf8(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from error


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: is not JSON: {error}") from error
