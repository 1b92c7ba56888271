"""What the queries of all kinds have in common."""

from __future__ import annotations

import re
import time
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, false

from puna.server.state.tables import MAX_ID

__all__ = ["insert_row", "is_id", "now", "owned"]

_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_ID}}}")


def is_id(text: str) -> bool:
    """Whether a text can be an id at all; what cannot is not looked for."""
    return _ID.fullmatch(text) is not None


def owned(table: Table, owner: str, key: str) -> ColumnElement[bool]:
    """The row of that id, if it is the owner's; never tells whether it is somebody else's."""
    return (table.c.owner == owner) & (table.c.id == key) if is_id(key) else false()


def insert_row(connection: Connection, table: Table, **values: Any) -> int:
    """Add a row.

    Returns:
        Its number.
    """
    key = connection.execute(table.insert().values(**values)).inserted_primary_key
    assert key is not None, f"{table.name} gives no number"
    return int(key[0])


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
