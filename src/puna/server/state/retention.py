"""What is kept for a while only, and that what was deleted is gone from the disk.

What writes is done in pieces, so that clients' writes wait for one piece at most.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from sqlalchemy import Connection, Engine, Table, delete, exists, func, select

from puna.server.state.tables import NOBODY, completions, conversations, items, responses

__all__ = [
    "FORGOTTEN",
    "SLICE_ROWS",
    "find_old",
    "forget",
    "has_room",
    "last",
    "remove_conversation",
    "remove_left",
    "shrink",
    "wipe",
]

FORGOTTEN = (responses, completions)
"""What is kept for a while only."""

SLICE_ROWS = 10_000
"""So many are looked at at once: reading takes as long as there is, and who reads for too long is cut off."""

_PIECE_S = 0.05
_PATIENCE_MS = 100
_ROOM_PAGES = 8  # more than one row can need, with all that its indices may


def last(connection: Connection, table: Table) -> int:
    """The number of a table's last row; 0: it has none."""
    return connection.execute(select(func.max(table.c.number))).scalar() or 0


def find_old(connection: Connection, table: Table, end: int, before: int) -> list[tuple[Table, int]]:
    """What is old among `SLICE_ROWS` rows.

    Args:
        connection: reads.
        table: of `FORGOTTEN`.
        end: the number of the last row to be looked at.
        before: seconds since 1970.

    Returns:
        The table and numbers of rows, those first that go on from others.
    """
    number = table.c.number
    query = select(number).where(number > end - SLICE_ROWS, number <= end, table.c.created_at < before)
    return [(table, each) for each in connection.execute(query.order_by(number.desc())).scalars()]


def forget(connection: Connection, old: Sequence[tuple[Table, int]]) -> int:
    """Delete a piece of what is old, but for responses that others go on from.

    Args:
        connection: writes.
        old: as `find_old` gives it.

    Returns:
        How many of them are done, deleted or kept.
    """
    end_s = time.monotonic() + _PIECE_S
    child = responses.alias()
    goes_on = exists().where(child.c.previous == responses.c.id, child.c.owner == responses.c.owner)
    for n_done, (table, number) in enumerate(old, 1):
        gone = delete(table).where(table.c.number == number)
        connection.execute(gone.where(~goes_on) if table is responses else gone)
        if time.monotonic() > end_s:
            return n_done
    return len(old)


def remove_conversation(connection: Connection, number: int) -> bool:
    """Delete a conversation with its items, or, where they are many, a piece of them.

    Args:
        connection: writes.
        number: of its row.

    Returns:
        Whether it is gone.
    """
    end_s = time.monotonic() + _PIECE_S
    its = select(items.c.number).where(items.c.conversation == number).order_by(items.c.number)
    for item in connection.execute(its).scalars().all():
        connection.execute(delete(items).where(items.c.number == item))
        if time.monotonic() > end_s:
            return False
    connection.execute(delete(conversations).where(conversations.c.number == number))
    return True


def remove_left(connection: Connection) -> bool:
    """Delete a piece of the conversations that nobody owns any more.

    Args:
        connection: writes.

    Returns:
        Whether there may be more of them.
    """
    left = select(conversations.c.number).where(conversations.c.owner == NOBODY).limit(1)
    number = connection.execute(left).scalar_one_or_none()
    if number is not None:
        remove_conversation(connection, number)
    return number is not None


def has_room(connection: Connection) -> bool:
    """Whether a row can be changed even where SQLite's file is as large as it may become."""
    return connection.dialect.name != "sqlite" or _n_free(connection) >= _ROOM_PAGES


def shrink(connection: Connection) -> bool:
    """Give pages of SQLite's file that nothing is in back to the disk.

    Args:
        connection: writes.

    Returns:
        Whether there may be more of them.
    """
    if connection.dialect.name != "sqlite":
        return False  # PostgreSQL's autovacuum does it
    end_s = time.monotonic() + _PIECE_S
    n_free = _n_free(connection)
    while n_free:
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")  # of a larger number it would do one
        n_left = _n_free(connection)
        if n_left >= n_free:
            return False  # somebody has rebuilt the file without the list that this needs
        n_free = n_left
        if time.monotonic() > end_s:
            break
    return n_free > 0


def _n_free(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())


def wipe(engine: Engine) -> bool:
    """Move SQLite's write-ahead log into its file and empty it: both have deleted texts until then.

    Returns:
        Whether that was possible; not while somebody reads what there was before.
    """
    if engine.dialect.name != "sqlite":
        return True
    # Not in a transaction, which ours all begin with.
    with closing(engine.raw_connection()) as borrowed:
        connection = borrowed.driver_connection
        assert connection is not None, "there is no connection"
        (before_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")  # for readers; nobody can write meanwhile
        try:
            is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {before_ms}")
    return not is_busy
