"""The log: one JSON object a line on stderr, and never a word of what users or models say.

`log` adds the id of the request that is being served, by which a client's report is found again.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from traceback import extract_tb
from typing import Any

__all__ = ["log", "log_error", "request_id"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the running task serves."""


def log(event: str, **facts: Any) -> None:
    """Write a line; where that fails, for a full disk say, what is served goes on without.

    Args:
        event: what happened, in a word.
        **facts: JSON values; None is left out.
    """
    line: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
    line |= {"request": request_id.get(), **facts}
    text = json.dumps({key: value for key, value in line.items() if value is not None})
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def log_error(error: BaseException, **facts: Any) -> None:
    """Write where something failed that nobody expected; its text may quote a user, and is left out.

    Args:
        error: what was raised.
        **facts: JSON values.
    """
    log("error", **facts, **_facts(error))


def _facts(error: BaseException) -> dict[str, Any]:
    frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
    facts: dict[str, Any] = {"kind": type(error).__name__, "where": frames}
    return facts if error.__cause__ is None else {**facts, "cause": _facts(error.__cause__)}
