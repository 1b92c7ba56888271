"""Stored chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, exists, insert, select

from puna.server.errors import ApiError
from puna.server.state.pages import Page, PageOf
from puna.server.state.paging import fetch_page
from puna.server.state.rows import insert_row, now, owned
from puna.server.state.tables import completion_labels, completions

__all__ = ["StoredCompletion", "add", "find", "label", "list_page", "remove"]

_COLUMNS = (completions.c.number, completions.c.body, completions.c.messages)


@dataclass(frozen=True, slots=True)
class StoredCompletion:
    """A chat completion as it was sent.

    Attributes:
        body: the completion.
        messages: what it answers.
        labels: its `metadata`.
    """

    body: dict[str, Any]
    messages: list[dict[str, Any]]
    labels: dict[str, str]


def add(connection: Connection, owner: str, completion: StoredCompletion) -> None:
    """Keep a completion."""
    number = insert_row(
        connection,
        completions,
        id=completion.body["id"],
        owner=owner,
        created_at=now(),
        model=completion.body["model"],
        body=completion.body,
        messages=completion.messages,
    )
    _set_labels(connection, number, completion.labels)


def find(connection: Connection, owner: str, key: str) -> StoredCompletion:
    """The completion of that id.

    Raises:
        ApiError: 404, the owner has none.
    """
    row = connection.execute(select(*_COLUMNS).where(owned(completions, owner, key))).one_or_none()
    if row is None:
        raise _not_found(key)
    return _completions(connection, [row])[0]


def list_page(
    connection: Connection, owner: str, page: Page, model: str | None, labels: Mapping[str, str]
) -> PageOf[StoredCompletion]:
    """A page of an owner's completions.

    Args:
        connection: reads.
        owner: whose.
        page: which part of the list.
        model: only those of this model.
        labels: only those that have all of these in their `metadata`.
    """
    query = select(*_COLUMNS)
    if model is not None:
        query = query.where(completions.c.model == model)
    for name, value in labels.items():
        has = completion_labels.c
        query = query.where(
            exists().where(has.completion == completions.c.number, has.name == name, has.value == value)
        )
    found = fetch_page(connection, completions, query, completions.c.owner == owner, page)
    return PageOf(_completions(connection, found.entries), found.has_more)


def label(connection: Connection, owner: str, key: str, labels: Mapping[str, str]) -> StoredCompletion:
    """Replace a completion's `metadata`.

    Raises:
        ApiError: 404, the owner has none of that id.
    """
    # Locked, so that of two changes at once the later one finds what the other has put there.
    query = select(completions.c.number).where(owned(completions, owner, key)).with_for_update()
    number = connection.execute(query).scalar_one_or_none()
    if number is None:
        raise _not_found(key)
    connection.execute(delete(completion_labels).where(completion_labels.c.completion == number))
    _set_labels(connection, number, labels)
    return find(connection, owner, key)


def remove(connection: Connection, owner: str, key: str) -> None:
    """Delete a completion.

    Raises:
        ApiError: 404, the owner has none of that id.
    """
    if not connection.execute(delete(completions).where(owned(completions, owner, key))).rowcount:
        raise _not_found(key)


def _set_labels(connection: Connection, number: int, labels: Mapping[str, str]) -> None:
    rows = [{"completion": number, "name": name, "value": value} for name, value in labels.items()]
    if rows:
        connection.execute(insert(completion_labels), rows)


def _completions(connection: Connection, rows: Sequence[Any]) -> list[StoredCompletion]:
    labels: dict[int, dict[str, str]] = {row.number: {} for row in rows}
    found = connection.execute(
        select(completion_labels).where(completion_labels.c.completion.in_(list(labels)))
    )
    for number, name, value in found:
        labels[number][name] = value
    return [StoredCompletion(row.body, row.messages, labels[row.number]) for row in rows]


def _not_found(key: str) -> ApiError:
    return ApiError(
        404,
        f"Chat completion '{key:.200}' not found. Use 'client.chat.completions.list()' to list available "
        "Chat completions.",
    )
