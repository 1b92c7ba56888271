"""Connections to the database: opened at the first use, and anew where the file that was opened is gone."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from puna.errors import StateError
from puna.server.state.database import explained, is_damaged, make_file, open_database
from puna.server.state.retention import wipe
from puna.server.state.room import Room
from puna.server.watch.log import log

__all__ = ["Connections", "Kind"]

Kind = Literal["read", "write", "free"]
_Files = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class _Opened:
    """What was opened; of SQLite its files too, by device and inode: names may come to mean others."""

    engine: Engine
    files: _Files


class Connections:
    """Hands the database out to threads.

    Nothing is opened before the first use. SQLite goes on with its files where they were removed, moved or
    replaced, and all that it writes then is lost, so it is looked at whether they are still in their place.
    """

    def __init__(self, url: URL | None, file: Path, max_bytes: int) -> None:
        """Prepare to open a database; arguments as for `open_database`."""
        self._url = url
        self._max_bytes = max_bytes
        self._file = file
        self._where = f"the database {url.database!r}" if url else str(file)
        self._names = () if url else tuple(Path(f"{file}{suffix}") for suffix in ("", "-wal", "-shm"))
        self._room = None if url else Room(file)
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    @contextmanager
    def transaction(self, kind: Kind) -> Iterator[Connection]:
        """Run a transaction; what it wrote is kept where the ``with`` block ends without an error.

        Args:
            kind: "free" makes room, and has some set aside for it on a full disk.

        Raises:
            StateError: the database cannot be used.
            ApiError: 507, it is full.
        """
        with self.engine() as engine:
            if self._room is not None and kind == "write":
                self._room.set_aside()
            elif self._room is not None and kind == "free":
                self._room.give()
            with engine.execution_options(puna_writes=kind != "read").begin() as connection:
                yield connection

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Use the database otherwise; raises as `transaction` does."""
        with explained(self._where):
            opened = self._open()
            pool = opened.engine.pool
            try:
                yield opened.engine
            except DBAPIError as error:
                if is_damaged(error):  # a copy may be put back, which nobody must hold the old one for
                    self._leave(opened)
                raise
            finally:
                if self._opened is not opened:
                    pool.dispose()  # closes what was in use when the others were closed
            if self._found() != opened.files:
                raise StateError(f"{self._moved} while they were used; what was written may be lost")

    def close(self) -> None:
        """Let go of the database."""
        if self._opened is not None:
            self._leave(self._opened)

    @property
    def _moved(self) -> str:
        reason = "its files were removed, moved or replaced"
        return f"the server's state in {self._where} cannot be used: {reason}"

    def _found(self) -> _Files:
        found: list[tuple[int, int] | None] = []
        for name in self._names:
            try:
                status = name.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino))
        return tuple(found)

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is not None and self._found() != opened.files:
            log("state_failed", error=f"{self._moved}; it is opened anew")
            self._leave(opened)
        with self._lock:
            if self._opened is None:
                started_s = time.monotonic()
                if self._room is not None:
                    make_file(self._file)
                    self._room.give()  # opening takes some, too
                before = self._found()
                engine = open_database(self._url, self._file, self._max_bytes)
                files = self._found()
                if files[:1] != before[:1]:
                    engine.dispose()
                    raise StateError(self._moved)
                self._opened = _Opened(engine, files)
                log(
                    "state_opened",
                    kind=engine.dialect.name,
                    ms=round(1000 * (time.monotonic() - started_s), 1),
                )
            return self._opened

    def _leave(self, opened: _Opened) -> None:
        with self._lock:
            if self._opened is not opened:
                return  # another thread was faster
            self._opened = None
            # A file that was moved has all that was written then, without the log that stayed behind.
            with suppress(DBAPIError, sqlite3.Error):
                wipe(opened.engine)
            opened.engine.dispose()
            self._clear_away(opened.files)

    def _clear_away(self, files: _Files) -> None:
        """Remove what a file that is gone left: SQLite would take it for that of the file that comes."""
        found = self._found()
        if found[:1] == files[:1]:
            return
        for name, now, then in list(zip(self._names, found, files, strict=True))[1:]:
            if now is not None and now == then:
                name.unlink(missing_ok=True)
