"""Pages of rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, select

from puna.server.state import tables
from puna.server.state.pages import Page, PageOf, no_such_entry
from puna.server.state.rows import is_id, json_length

__all__ = ["fetch_page"]


def fetch_page(
    connection: Connection, table: Table, query: Select[Any], within: ColumnElement[bool], page: Page
) -> PageOf[Any]:
    """Rows of a page; fewer than it may have where they are very long.

    Args:
        connection: reads.
        table: has an `id` and a `number`.
        query: what is wanted of them.
        within: which of them may be seen.
        page: the page.

    Raises:
        ApiError: 400, there is no such entry to begin behind.
    """
    query = query.where(within)
    if page.after is not None:
        entry = select(table.c.number).where(within, table.c.id == page.after)
        number = connection.execute(entry).scalar_one_or_none() if is_id(page.after) else None
        if number is None:
            raise no_such_entry(page.after)
        is_behind = table.c.number > number if page.order == "asc" else table.c.number < number
        query = query.where(is_behind)
    order = table.c.number.asc() if page.order == "asc" else table.c.number.desc()
    query = query.add_columns(json_length(table).label("json_length")).order_by(order).limit(page.limit + 1)
    rows: list[Any] = []
    n_characters = 0
    # One by one: psycopg would have all of them in memory before it gives the first.
    with connection.execute(query.execution_options(stream_results=True, yield_per=1)) as found:
        for row in found:
            n_characters += row.json_length
            if len(rows) == page.limit or (rows and n_characters > tables.MAX_AT_ONCE):
                return PageOf(rows, True)
            rows.append(row)
    return PageOf(rows, False)
