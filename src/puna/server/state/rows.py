"""What the queries of all kinds have in common."""

from __future__ import annotations

import re
import time
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, Table, false, func, select

from puna.server.errors import ApiError
from puna.server.state import tables
from puna.server.state.tables import MAX_ID, Json

__all__ = ["check_length", "insert_row", "is_id", "json_length", "now", "owned"]

_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_ID}}}")


def is_id(text: str) -> bool:
    """Whether a text can be an id at all; what cannot is not looked for."""
    return _ID.fullmatch(text) is not None


def owned(table: Table, owner: str, key: str) -> ColumnElement[bool]:
    """The row of that id, if it is the owner's; never tells whether it is somebody else's."""
    return (table.c.owner == owner) & (table.c.id == key) if is_id(key) else false()


def json_length(table: Table) -> ColumnElement[int]:
    """Characters of JSON in a row, to be looked at before it is read."""
    columns = [column for column in table.c if isinstance(column.type, Json)]
    first, *others = (func.length(column, type_=Integer) for column in columns)
    return sum(others, start=first)


def check_length(connection: Connection, lengths: Select[int]) -> None:
    """Make sure that not too much will be read.

    Args:
        connection: reads.
        lengths: `json_length` of every row that will be.

    Raises:
        ApiError: 400, it is too much.
    """
    n_characters = connection.execute(select(func.sum(lengths.subquery().c[0]))).scalar() or 0
    if n_characters > tables.MAX_AT_ONCE:
        raise ApiError(
            400,
            f"what was said so far takes {n_characters} bytes, and a request may go on from "
            f"{tables.MAX_AT_ONCE}; begin anew",
            code="conversation_full",
        )


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
