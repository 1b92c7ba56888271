"""Room on SQLite's disk: some is set aside, or nothing could be deleted where the disk is full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from puna.server.errors import ApiError

__all__ = ["Room", "no_room"]

# Deleting a row of 4 MiB writes as much to the log, with another few MiB that the file has not got yet.
_RESERVE_BYTES = 16 * 1024**2


def no_room() -> ApiError:
    """What those are told whose things cannot be stored."""
    return ApiError(
        507,
        "the server has no room to store more; delete what is not needed any more, or send `store: false`",
        code="state_full",
    )


class Room:
    """A file that takes room, and goes where a full disk leaves none to delete."""

    def __init__(self, file: Path) -> None:
        """Prepare to set room aside.

        Args:
            file: of SQLite, which it stands beside.
        """
        self._reserve = Path(f"{file}-reserve")

    def set_aside(self) -> None:
        """Take room before more is stored, which would else use up what deleting is to have.

        Raises:
            ApiError: 507, there is not so much.
        """
        if self._reserve.exists():
            return
        try:
            self._reserve.touch(mode=0o600)
            self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))  # zeros take no room on some disks
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise no_room() from error

    def give(self) -> None:
        """Let go of it where the disk has not so much left, before the database is opened or made smaller."""
        if shutil.disk_usage(self._reserve.parent).free < _RESERVE_BYTES:
            self._reserve.unlink(missing_ok=True)
