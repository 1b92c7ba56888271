"""The server's process: a note of it in the store, by which its owner ends it.

The process holds its note locked. The system lets go of the lock when the process dies, whatever ends it, and
another process that has its number by then holds none.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from puna.errors import ServerError, StoreError
from puna.models.lock import is_locked, locked
from puna.models.store import home

__all__ = ["end", "noted"]

_LONGEST_DRAIN_S = 3600


@contextmanager
def noted(instance: str) -> Iterator[None]:
    """Note this process as a server in a ``with`` block, and delete what servers that were killed have left.

    Args:
        instance: the id that the server gives itself.

    Raises:
        StoreError: the store cannot be written.
    """
    note = _note(instance)
    with ExitStack() as held:
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            _clear(note.parent)
            held.enter_context(locked(note, lambda: None))
            note.write_text(str(os.getpid()), encoding="ascii")
        except OSError as error:
            raise StoreError(f"{note} cannot be written: {error.strerror or error}") from error
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def end(instance: str) -> None:
    """End a server in an orderly way, and wait until it has ended.

    Args:
        instance: the id that the server says it has. One of another machine or user has no note here.

    Raises:
        ServerError: it was not started here, or does not end.
    """
    note = _note(instance)
    try:
        pid = int(note.read_text(encoding="ascii"))
        if not is_locked(note):
            raise ProcessLookupError(pid)
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise ServerError(
            "that server was not started by you on this machine with this PUNA_HOME; end it where it was "
            "started"
        ) from error
    deadline_s = time.monotonic() + _LONGEST_DRAIN_S
    while is_locked(note):
        if time.monotonic() > deadline_s:
            raise ServerError(f"the server (process {pid}) does not end")
        time.sleep(0.05)
    note.unlink(missing_ok=True)  # it may have been killed meanwhile


def _clear(folder: Path) -> None:
    for note in folder.iterdir():
        with suppress(OSError):  # another one clears too, or it is no note of this user's
            # An empty one is of a server that is just about to lock it.
            if note.stat().st_size and not is_locked(note):
                note.unlink()


def _note(instance: str) -> Path:
    if not re.fullmatch(r"srv_[0-9a-f]{24}", instance):
        raise ServerError(f"a server of Puna has an id of 24 digits, got {instance!r:.100}")
    return home() / "servers" / instance
