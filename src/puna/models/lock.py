"""A lock between processes that the operating system lets go of when its holder dies."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["is_locked", "locked"]

_PAUSE_S = 0.2


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock for the length of a ``with`` block.

    Args:
        path: the lock's file, which stays; its folder exists.
        waiting: called once where another process has the lock.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("ab") as file:
        if not _try_lock(file):
            waiting()
            while not _try_lock(file):
                time.sleep(_PAUSE_S)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock; False where there is no file of it.

    Args:
        path: the lock's file.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        with path.open("r+b") as file:
            return not _try_lock(file)
    except FileNotFoundError:
        return False


def _try_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True
