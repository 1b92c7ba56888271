"""What libraries log and warn of, as lines of the server's log: it would else be bare text on stderr.

Their messages may quote a user or name a path. So only those are told of which we know that they do not.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from puna.server.watch.log import log, log_error

__all__ = ["libraries_logged"]

# Libraries whose messages are told, and the event of them.
_TOLD = {"uvicorn": "uvicorn", "opentelemetry": "traces"}


@contextmanager
def libraries_logged() -> Iterator[None]:
    """Take all records from warnings on, and Python's warnings, for the length of a ``with`` block."""
    handler, show = _Handler(logging.WARNING), warnings.showwarning
    logging.getLogger().addHandler(handler)
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.getLogger().removeHandler(handler)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        told = _TOLD.get(record.name.partition(".")[0])
        source = {"logger": record.name, "level": record.levelname.lower()}
        if isinstance(error, asyncio.CancelledError):
            pass  # what the end cuts off is no failure
        elif error is not None:
            log_error(error, **source)
        elif told is not None:
            log(told, problem=record.getMessage())
        else:
            log("library", **source, where=[f"{record.filename}:{record.lineno}"])


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log("warning", kind=category.__name__, where=[f"{Path(filename).name}:{lineno}"])
