"""Free space on a disk: `require_room`."""

from __future__ import annotations

import shutil
from pathlib import Path

from puna.errors import StoreError

__all__ = ["require_room"]


def require_room(folder: Path, n_bytes: int) -> None:
    """Insist on free space on the disk of an existing folder, before a long job fails for want of it.

    Raises:
        StoreError: there is less; the message has both numbers.
        OSError: the folder is not there.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            f"{folder} needs {n_bytes} bytes more, the disk has {free} free; make room, or use a folder on "
            "another disk (for the store, set PUNA_HOME to it)"
        )
