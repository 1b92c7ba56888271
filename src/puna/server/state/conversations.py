"""Conversations and their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.state.pages import Page, PageOf
from puna.server.state.paging import fetch_page
from puna.server.state.retention import has_room, remove_conversation
from puna.server.state.rows import check_length, insert_row, is_id, json_length, now, owned
from puna.server.state.tables import NOBODY, conversations, items

__all__ = [
    "Conversation",
    "add",
    "add_items",
    "find",
    "find_item",
    "find_named",
    "item_page",
    "label",
    "remove",
    "remove_item",
    "said",
]

MAX_ITEMS = 10_000
"""Items of one conversation."""
_ID_BYTES = 24


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation.

    Attributes:
        id: its name.
        created_at: seconds since 1970.
        labels: its `metadata`.
    """

    id: str
    created_at: int
    labels: dict[str, str]


def add(
    connection: Connection, owner: str, labels: dict[str, str], first: Sequence[dict[str, Any]]
) -> Conversation:
    """Begin a conversation.

    Args:
        connection: writes.
        owner: whose.
        labels: its `metadata`.
        first: its first items.
    """
    made = Conversation(new_id("conv_", _ID_BYTES), now(), labels)
    number = insert_row(
        connection, conversations, id=made.id, owner=owner, created_at=made.created_at, labels=labels
    )
    _append(connection, number, first)
    return made


def find(connection: Connection, owner: str, key: str) -> Conversation:
    """The conversation of that id.

    Raises:
        ApiError: 404, the owner has none.
    """
    row = connection.execute(select(conversations).where(owned(conversations, owner, key))).one_or_none()
    if row is None:
        raise _not_found(key)
    return Conversation(row.id, row.created_at, row.labels)


def label(connection: Connection, owner: str, key: str, labels: dict[str, str]) -> Conversation:
    """Replace a conversation's `metadata`; raises as `find` does."""
    connection.execute(update(conversations).where(owned(conversations, owner, key)).values(labels=labels))
    return find(connection, owner, key)


def remove(connection: Connection, owner: str, key: str) -> None:
    """Delete a conversation with its items; raises as `find` does.

    Where they are many it is nobody's from here on, and most of them go in pieces later.
    """
    number = _number(connection, owner, key, locks=True)
    while not remove_conversation(connection, number):
        if has_room(connection):  # a full database has it only behind some of the items
            row = conversations.c.number == number
            connection.execute(update(conversations).where(row).values(owner=NOBODY))
            return


def add_items(
    connection: Connection, owner: str, key: str, new: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Add to the end of a conversation.

    Returns:
        The items.

    Raises:
        ApiError: 404, there is no such conversation; 400, it is full, or has an item of that id.
    """
    # Locked, so that what two responses say at once stands one behind the other.
    _append(connection, _number(connection, owner, key, locks=True), new)
    return list(new)


def said(connection: Connection, owner: str, key: str) -> list[dict[str, Any]]:
    """All items of a conversation in their order.

    Raises:
        ApiError: 404, the owner has none of that id; 400, they are too long.
    """
    within = items.c.conversation == _number(connection, owner, key)
    check_length(connection, select(json_length(items)).where(within))
    return list(connection.execute(select(items.c.body).where(within).order_by(items.c.number)).scalars())


def item_page(connection: Connection, owner: str, key: str, page: Page) -> PageOf[dict[str, Any]]:
    """A page of a conversation's items; raises as `find` does."""
    number = _number(connection, owner, key)
    found = fetch_page(connection, items, select(items.c.body), items.c.conversation == number, page)
    return PageOf([row.body for row in found.entries], found.has_more)


def find_item(connection: Connection, owner: str, key: str, item: str) -> dict[str, Any]:
    """One item.

    Raises:
        ApiError: 404, there is no such conversation, or no such item in it.
    """
    within = (items.c.conversation == _number(connection, owner, key)) & (items.c.id == item)
    body = (
        connection.execute(select(items.c.body).where(within)).scalar_one_or_none() if is_id(item) else None
    )
    if body is None:
        raise _no_item(key, item)
    found: dict[str, Any] = body
    return found


def find_named(connection: Connection, owner: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those of some items that an owner's conversations have, by their ids; of the same id the newest.

    Raises:
        ApiError: 400, they are too long.
    """
    # Not a join, for which SQLite looks for every id in each of the owner's conversations.
    whose = select(conversations.c.owner).where(conversations.c.number == items.c.conversation)
    newest = (
        select(func.max(items.c.number))
        .where(items.c.id.in_(ids), whose.scalar_subquery() == owner)
        .group_by(items.c.id)
    )
    within = items.c.number.in_(newest)
    check_length(connection, select(json_length(items)).where(within))
    return {body["id"]: body for body in connection.execute(select(items.c.body).where(within)).scalars()}


def remove_item(connection: Connection, owner: str, key: str, item: str) -> Conversation:
    """Delete one item; raises as `find_item` does.

    Returns:
        The conversation that it was in.
    """
    within = (items.c.conversation == _number(connection, owner, key)) & (items.c.id == item)
    if not is_id(item) or not connection.execute(delete(items).where(within)).rowcount:
        raise _no_item(key, item)
    return find(connection, owner, key)


def _number(connection: Connection, owner: str, key: str, *, locks: bool = False) -> int:
    query = select(conversations.c.number).where(owned(conversations, owner, key))
    number = connection.execute(query.with_for_update() if locks else query).scalar_one_or_none()
    if number is None:
        raise _not_found(key)
    return int(number)


def _append(connection: Connection, number: int, new: Sequence[dict[str, Any]]) -> None:
    if not new:
        return
    ids = [item["id"] for item in new]
    n_old = connection.execute(select(func.count()).where(items.c.conversation == number)).scalar_one()
    if n_old + len(new) > MAX_ITEMS:
        raise ApiError(
            400,
            f"a conversation may have {MAX_ITEMS} items, this one has {n_old} and would get {len(new)} more; "
            "begin another",
            code="conversation_full",
        )
    twice = connection.execute(
        select(items.c.id).where(items.c.conversation == number, items.c.id.in_(ids)).limit(1)
    ).scalar_one_or_none()
    if twice is not None or len(set(ids)) < len(ids):
        raise ApiError(
            400, f"the conversation has an item {twice or ids[0]!r:.200} already; leave its `id` out"
        )
    connection.execute(
        insert(items), [{"conversation": number, "id": item["id"], "body": item} for item in new]
    )


def _not_found(key: str) -> ApiError:
    return ApiError(404, f"Conversation '{key:.200}' not found.")


def _no_item(key: str, item: str) -> ApiError:
    return ApiError(404, f"Item '{item:.200}' not found in conversation '{key:.200}'.")
