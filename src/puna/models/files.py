"""Opening files that came from outside: mapped read-only, or read as text or one JSON object, within limits.

Every reader of this package goes through these functions, so that a placeholder saved in a file's
place, an oversized file or a file that may not be read gives the same words everywhere.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError

__all__ = [
    "map_file",
    "parse_json_object",
    "read_bytes",
    "read_head",
    "read_json_object",
    "read_text",
    "stamps",
]

# Llama 3's tokenizer.json, the largest text that a model folder holds, has 17 MB.
_MAX_TEXT_BYTES = 64 * 1024 * 1024
_HEAD_BYTES = 1024
_CONTAINERS = frozenset({dict, list})
_MAX_JSON_DEPTH = 64  # tokenizer.json, the deepest that a model folder holds, has 8


def map_file(path: Path) -> NDArray[np.uint8]:
    """Map a whole file into memory, read-only; the pages are read when they are touched.

    Args:
        path: a regular file of at least one byte.

    Returns:
        The file's bytes; the map is released with the last array that views it.

    Raises:
        CheckpointError: the file is not there, empty, not readable, or a placeholder for another.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise CheckpointError(f"{path} is empty; the download may have failed, fetch it again") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # the system has none
            mapped.madvise(mmap.MADV_HUGEPAGE)  # whoever reads all weights looks up 500 times fewer pages
    _refuse_placeholder(path, mapped[:_HEAD_BYTES])
    return np.frombuffer(mapped, dtype=np.uint8)


def read_head(path: Path) -> bytes:
    """Read the first bytes of a file, to tell its format; fewer than 1024 where it is shorter.

    Raises:
        CheckpointError: the file is not there, not readable, or a placeholder for another.
    """
    return _read(path, _HEAD_BYTES)


def read_bytes(path: Path) -> bytes:
    """Read a file of at most 64 MB.

    Raises:
        CheckpointError: the file is not there, not readable, too large, or a placeholder.
    """
    data = _read(path, _MAX_TEXT_BYTES + 1)
    if len(data) > _MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: needs at most {_MAX_TEXT_BYTES} bytes, got more")
    return data


def read_text(path: Path) -> str:
    """Read a UTF-8 text file of at most 64 MB.

    Raises:
        CheckpointError: as `read_bytes`, or it is not UTF-8.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: needs UTF-8 text, got byte {data[error.start]:#04x}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object, of at most 64 MB.

    Raises:
        CheckpointError: as `read_text` and `parse_json_object`.
    """
    return parse_json_object(read_text(path), str(path))


def parse_json_object(
    text: str,
    source: str,
    max_keys: int | None = None,
    parse_float: Callable[[str], float] | None = None,
) -> dict[str, Any]:
    """Parse text that must be one JSON object in which no object has the same key twice.

    Args:
        text: the JSON text.
        source: where it is from, for the message.
        max_keys: how many one object may have; None: any number.
        parse_float: makes a number of its text, or raises a `ValueError`; it sees `NaN` and `Infinity`, too.
            None: `float`.

    Raises:
        CheckpointError: not JSON, nested more than 64 deep, a key given twice, too many of them, or not an
            object.
    """
    try:
        hook = partial(_object_without_duplicates, max_keys)
        value = json.loads(text, object_pairs_hook=hook, parse_float=parse_float, parse_constant=parse_float)
        is_deep = _is_deep(value)
    except RecursionError:
        is_deep = True
    except ValueError as error:
        raise CheckpointError(f"{source}: not valid JSON: {error!s:.200}") from error
    if is_deep:
        raise CheckpointError(f"{source}: the JSON may be nested {_MAX_JSON_DEPTH} deep, it is deeper")
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: needs a JSON object, got {type(value).__name__}")
    return value


def _is_deep(value: Any) -> bool:
    """Whether it would be too deep for functions that call themselves, such as `repr`."""
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(_MAX_JSON_DEPTH):
        inside = [item.values() if type(item) is dict else item for item in level]
        # A vocabulary has some 100,000 entries, so the usual end is found without a loop of Python's.
        if _CONTAINERS.isdisjoint(map(type, chain.from_iterable(inside))):
            return False
        level = [item for item in chain.from_iterable(inside) if type(item) in _CONTAINERS]
    return True


def _object_without_duplicates(max_keys: int | None, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if max_keys is not None and len(pairs) > max_keys:
        raise ValueError(f"an object may have {max_keys} keys, got {len(pairs)}")
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.100} is given twice")
            seen.add(key)
    return result


def _read(path: Path, n_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(n_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    _refuse_placeholder(path, data[:_HEAD_BYTES])
    return data


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: {error.strerror or error}")


def _refuse_placeholder(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(
            f"{path} is a web page, not a model file; the link probably led to a page about the file "
            "or a login, download the file itself"
        )


def stamps(path: Path) -> list[list[str | int]]:
    """By what other files in their place are noticed: name, bytes and time of change of each.

    Args:
        path: a file, a folder of files, or what is not there: a model in memory has no files.

    Raises:
        CheckpointError: it cannot be looked at.
    """
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        looked_at = [(file, file.stat()) for file in files if file.exists()]
    except OSError as error:
        raise _unreadable(path, error) from error
    return [[file.name, at.st_size, at.st_mtime_ns] for file, at in looked_at]
