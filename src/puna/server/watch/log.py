"""The log: one JSON object a line on stderr, and never a word of what users or models say.

`log` adds the id of the request that is being served, by which a client's report is found again. While a
server runs a thread writes the lines (`log_in_thread`): the event loop must not wait for who reads them.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from traceback import extract_tb
from typing import Any

__all__ = ["log", "log_error", "log_in_thread", "request_id"]

_STDERR = 2
_MAX_LINES = 4096  # that wait to be written; some 1 MB
_END_S = 1.0  # for what still waits at the end

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the running task serves."""


def log(event: str, **facts: Any) -> None:
    """Write a line; where that fails, for a full disk say, what is served goes on without.

    Args:
        event: what happened, in a word.
        **facts: JSON values; None is left out.
    """
    text = _line(event, request=request_id.get(), **facts)
    if _Writer.running is None:
        _write(text)
    else:
        _Writer.running.take(text)


def log_error(error: BaseException, **facts: Any) -> None:
    """Write where something failed that nobody expected; its text may quote a user, and is left out.

    Args:
        error: what was raised.
        **facts: JSON values.
    """
    log("error", **facts, **_facts(error))


@contextmanager
def log_in_thread() -> Iterator[None]:
    """Have a thread write the lines for the length of a ``with`` block.

    Thousands may wait; how many more there were is a line (``log_lost``) in their place. The end of the block
    waits until all are written, but not for long.
    """
    writer = _Writer.running = _Writer()
    try:
        yield
    finally:
        _Writer.running = None
        writer.end()


class _Writer:
    """A thread with the lines that it is to write."""

    running: _Writer | None = None

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._n_lost = 0
        self._is_over = False
        # Its lock may be taken again by who has it: a destructor may log anywhere, in here too.
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="puna-log", daemon=True)
        self._thread.start()

    def take(self, line: str) -> None:
        with self._changed:
            if len(self._lines) < _MAX_LINES:
                self._lines.append(line)
                self._changed.notify()
            else:
                self._n_lost += 1

    def end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while lines := self._waiting():
            _write("".join(lines))  # at once: for each write the thread waits for its turn among Python's

    def _waiting(self) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._is_over)
            lines, self._lines = self._lines, []
            if self._n_lost:
                lines.append(_line("log_lost", lines=self._n_lost))
                self._n_lost = 0
            return lines


def _line(event: str, **facts: Any) -> str:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    return json.dumps({key: value for key, value in line.items() if value is not None}) + "\n"


def _write(text: str) -> None:
    with suppress(OSError):
        rest = text.encode()
        while rest:
            # Not through `sys.stderr`, whose lock a write that hangs would keep from the end of the process.
            rest = rest[os.write(_STDERR, rest) :]


def _facts(error: BaseException) -> dict[str, Any]:
    frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
    facts: dict[str, Any] = {"kind": type(error).__name__, "where": frames}
    return facts if error.__cause__ is None else {**facts, "cause": _facts(error.__cause__)}
