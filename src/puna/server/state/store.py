"""The door to the database for routes: work is done in threads, each piece in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine

from puna.models.store import home
from puna.server.settings import ServerSettings
from puna.server.state.connections import Connections, Kind
from puna.server.state.database import parse_url
from puna.server.state.threads import Threads
from puna.server.state.upkeep import Upkeep

__all__ = ["State"]

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 4


class State:
    """What the server keeps. Nothing is opened before the first use, nor made before the first write.

    A write that was waited for is on the disk: it outlives this process, however that ends. Several servers
    may share the database.
    """

    def __init__(self, settings: ServerSettings, file: Path | None = None) -> None:
        """Prepare to keep things.

        Args:
            settings: where, how much and for how long.
            file: of SQLite, where no other database is set; default: in the Puna folder.

        Raises:
            ConfigError: the address of the database is none.
        """
        url = parse_url(settings.database_url) if settings.database_url else None
        file = file or home() / "state" / "puna.db"
        self._connections = Connections(url, file, settings.max_state_bytes)
        keep_s = None if settings.keep_state_days is None else settings.keep_state_days * 86400
        self._upkeep = Upkeep(self, keep_s)
        # SQLite has one writer at a time; a queue here is fairer than a busy file.
        self._writers = Threads(_THREADS if url else 1, "puna-state-write")
        self._readers = Threads(_THREADS, "puna-state-read")

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Look something up.

        Args:
            work: is called with a connection, in a thread.
            *args: go on to it.
            **kwargs: go on to it.

        Raises:
            StateError: the database cannot be used.
        """
        return await self._in(self._readers, lambda decide: self._run("read", decide, work, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Change something; all of it, or nothing where `work` raises. Arguments as for `read`.

        Raises:
            StateError: the database cannot be used and nothing is changed, or its file is gone and so may be
                what was changed.
            ApiError: 507, it is full; 503, nobody knows whether it is changed.
        """
        return await self._in(self._writers, lambda decide: self._run("write", decide, work, *args, **kwargs))

    async def free(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Change something as `write` does so that less is kept; a full disk has room set aside for it."""
        return await self._in(self._writers, lambda decide: self._run("free", decide, work, *args, **kwargs))

    async def delete(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do as `free` does, and have SQLite's file without what was deleted soon after."""
        done = await self.free(work, *args, **kwargs)
        self._upkeep.want()
        return done

    async def maintain(self, work: Callable[[Engine], T]) -> T:
        """Do something to the database outside of any transaction, while this server writes nothing else."""
        return await self._in(self._writers, lambda decide: self._maintain(decide, work))

    async def close(self) -> None:
        """Let go of the database, after what is being written."""
        await self._upkeep.close()
        await self._writers.close()
        await self._readers.close()
        self._connections.close()

    async def _in(self, threads: Threads, work: Callable[[Callable[[], None]], T]) -> T:
        done = await threads.run(work)
        self._upkeep.begin()  # only now: nothing is opened before the first use
        return done

    def _run(
        self,
        kind: Kind,
        decide: Callable[[], None],
        work: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        with self._connections.transaction(kind) as connection:
            done = work(connection, *args, **kwargs)
            decide()
        return done

    def _maintain(self, decide: Callable[[], None], work: Callable[[Engine], T]) -> T:
        decide()
        with self._connections.engine() as engine:
            return work(engine)
