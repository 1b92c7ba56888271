"""Opening the database: SQLite or PostgreSQL, brought to the version that this Puna knows."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from puna.errors import ConfigError, StateError
from puna.server.state.migrations import REVISIONS
from puna.server.state.room import no_room

__all__ = ["explained", "is_damaged", "make_file", "open_database", "parse_url"]

_VERSION_TABLE = "puna_version"
_MIGRATION_LOCK = 0x70756E61  # of PostgreSQL, for all its clients: "puna"
_WAIT_MS = 10_000  # for what other processes hold
_PAGE_BYTES = 4096
# A server that is not heard of any more is given up, though it never said so. Its address may say otherwise.
_POSTGRES = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 1,
    "tcp_user_timeout": _WAIT_MS,
}
# FULL: what was committed survives a power cut, not only the end of the process.
_PRAGMAS = {
    "busy_timeout": _WAIT_MS,
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": "ON",
    "secure_delete": "ON",  # what a client deletes is gone
    "trusted_schema": "OFF",
    "cell_size_check": "ON",
}


def parse_url(url: str) -> URL:
    """The address of a PostgreSQL database.

    Args:
        url: as ``DATABASE_URL`` has it: ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises:
        ConfigError: it is no such address, or psycopg is not installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        kind = parsed.drivername if parsed else "something else"
        # Not the address itself: it may hold a password.
        raise ConfigError(
            f"DATABASE_URL must be postgresql://USER:PASSWORD@HOST/NAME, got {kind!r:.80}; unset it and the "
            "server keeps its state in SQLite"
        )
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "DATABASE_URL names a PostgreSQL database and psycopg is not installed; "
            "`pip install 'puna[postgres]'`"
        ) from error
    return parsed.set(drivername="postgresql+psycopg")


def open_database(url: URL | None, file: Path, max_bytes: int) -> Engine:
    """Open the database, which gets its tables where it has none and is brought up to date where it is older.

    Args:
        url: of PostgreSQL; None for SQLite.
        file: where SQLite has it.
        max_bytes: how large SQLite may let it become.

    Raises:
        StateError: it is damaged, newer than this Puna, somebody else's, or cannot be reached.
    """
    where = f"the database {url.database!r} on {url.host!r}" if url else str(file)
    if url is None:
        # `rw`: a connection that comes later makes no file where somebody moved this one away.
        query = {"uri": "true", "mode": "rw"}
        engine = create_engine(URL.create("sqlite", database=f"file:{quote(str(file))}", query=query))
        _set_up_sqlite(engine, max_bytes)
    else:
        unsaid = {name: value for name, value in _POSTGRES.items() if name not in url.query}
        engine = create_engine(url, pool_pre_ping=True, connect_args=unsaid)
        _set_up_postgres(engine)
    try:
        with explained(where):
            _bring_up_to_date(engine, where)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn errors of the database into ours; theirs quote what they were given.

    Args:
        where: the database, for people.

    Raises:
        StateError: it cannot be used.
        ApiError: 507, it is full.
    """
    try:
        yield
    except DBAPIError as error:
        cause = str(error.orig)
        if "database or disk is full" in cause or "disk full" in cause.lower():
            raise no_room() from error
        if is_damaged(error):
            reason = "it is damaged; put a copy of it back, or move it away and the server begins anew"
        elif "locked" in cause:
            reason = f"another process held it for {_WAIT_MS // 1000} s"
        elif "readonly" in cause or "unable to open" in cause:
            reason = "this user cannot write there"
        else:
            reason = f"the database says {type(error.orig).__name__}"
            reason += "" if error.statement else f": {cause.splitlines()[0]:.200}"
        raise StateError(f"the server's state in {where} cannot be used: {reason}") from error


def is_damaged(error: DBAPIError) -> bool:
    """Whether an error says that SQLite's file is none, or not whole."""
    cause = str(error.orig)
    return "malformed" in cause or "not a database" in cause


def make_file(file: Path) -> None:
    """Make an empty file for SQLite where there is none, which only its user can read.

    Raises:
        StateError: it cannot be made.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StateError(f"the server's state cannot be kept in {file}: {error.strerror}") from error


def _set_up_sqlite(engine: Engine, max_bytes: int) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions by itself; `begin` does
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # a write, so only where it is due
        found = {}
        for name, value in (*_PRAGMAS.items(), ("max_page_count", max(1, max_bytes // _PAGE_BYTES))):
            found[name] = connection.execute(f"PRAGMA {name} = {value}").fetchone()
        if found["journal_mode"] != ("wal",):
            raise StateError(
                "the server's state cannot be kept in this folder, where SQLite has no write-ahead log (a "
                "network file system?); set PUNA_HOME to a local one, or DATABASE_URL"
            )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Who means to write says so at the beginning, or two that read first could never both go on.
        writes = connection.get_execution_options().get("puna_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_up_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # Not among what a connection begins with, which poolers between here and there may refuse.
        connection.execute(f"SET statement_timeout = {_WAIT_MS}")
        connection.commit()


def _bring_up_to_date(engine: Engine, where: str) -> None:
    with engine.begin() as connection:
        if _version(connection, where) == REVISIONS[-1]:
            return
    with engine.execution_options(puna_writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            # Large tables take long, and so does waiting for another server that changes them.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        if _version(connection, where) != REVISIONS[-1]:  # nobody else was faster
            _migrate(connection)


def _version(connection: Connection, where: str) -> str | None:
    """The database's revision, None where it is empty."""
    tables = inspect(connection).get_table_names()
    if _VERSION_TABLE not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise StateError(f"{where} is a database of another program; move it away")
        return None
    version = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
    if version is not None and version not in REVISIONS:
        raise StateError(
            f"the server's state in {where} was written by a newer Puna (its version is {version!r:.40}, "
            f"this one knows {REVISIONS[-1]!r}); update Puna, or move it away"
        )
    return version


def _migrate(connection: Connection) -> None:
    # Brings templates and much else, so only where there is something to do.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))

    def upgrade(revision: Any, _: Any) -> Any:
        return scripts._upgrade_revs("head", revision)  # what Alembic's own manual calls here

    with EnvironmentContext(Config(), scripts, fn=upgrade) as environment:
        environment.configure(connection=connection, version_table=_VERSION_TABLE)
        environment.run_migrations()
