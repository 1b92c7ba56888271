"""Responses: as they were sent, what they answer, and those that are still being computed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, select, update

from puna.server.errors import ApiError
from puna.server.state import conversations
from puna.server.state.pages import Page, PageOf
from puna.server.state.paging import fetch_page
from puna.server.state.rows import check_length, insert_row, json_length, now, owned
from puna.server.state.tables import response_items, responses

__all__ = [
    "StoredResponse",
    "add",
    "cancel",
    "chain",
    "find",
    "find_items",
    "finish",
    "keep_alive",
    "list_page",
    "remove",
    "said",
]

MAX_CHAIN = 1000
"""Responses that one may go on from, one behind the other."""
_OPEN = ("queued", "in_progress")
_SILENT_S = 60  # a server that computes says so much more often
_COLUMNS = (
    responses.c.id, responses.c.status, responses.c.body, responses.c.input, responses.c.alive_at,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it was sent.

    Attributes:
        body: the response.
        input: its own input items, without what it goes on from.
    """

    body: dict[str, Any]
    input: list[dict[str, Any]]


def add(connection: Connection, owner: str, response: StoredResponse) -> None:
    """Keep a response; with one that is through, its conversation gets what was said.

    Raises:
        ApiError: 404, the conversation is gone; 400, it is full.
    """
    body = response.body
    is_open = body["status"] in _OPEN
    number = insert_row(
        connection,
        responses,
        id=body["id"],
        owner=owner,
        created_at=body["created_at"],
        model=body["model"],
        status=body["status"],
        previous=body["previous_response_id"],
        body=body,
        input=response.input,
        alive_at=now() if is_open else None,
    )
    _note_items(connection, number, [*response.input, *body["output"]])
    if not is_open:
        _tell_conversation(connection, owner, response)


def finish(connection: Connection, owner: str, response: StoredResponse) -> bool:
    """Replace a response that was computed in the background by what came of it.

    Returns:
        False where it was cancelled or deleted meanwhile, and so is left as it is.
    """
    body = response.body
    is_over = body["status"] not in _OPEN
    is_open = owned(responses, owner, body["id"]) & responses.c.status.in_(_OPEN)
    number = connection.execute(
        select(responses.c.number).where(is_open).with_for_update()
    ).scalar_one_or_none()
    if number is None:
        return False
    connection.execute(
        update(responses)
        .where(responses.c.number == number)
        .values(status=body["status"], body=body, alive_at=None if is_over else now())
    )
    if is_over:
        _note_items(connection, number, body["output"])
    if body["status"] in ("completed", "incomplete"):
        _tell_conversation(connection, owner, response)
    return True


def keep_alive(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Say that responses are still being computed.

    Returns:
        Those of them that are still wanted.
    """
    wanted = responses.c.id.in_(ids) & responses.c.status.in_(_OPEN)
    connection.execute(update(responses).where(wanted).values(alive_at=now()))
    return set(connection.execute(select(responses.c.id).where(wanted)).scalars())


def find(connection: Connection, owner: str, key: str, running: Collection[str] = ()) -> StoredResponse:
    """The response of that id.

    Args:
        connection: reads.
        owner: whose.
        key: its id.
        running: those that this server computes, which have not failed whatever the clock says.

    Raises:
        ApiError: 404, the owner has none.
    """
    row = connection.execute(select(*_COLUMNS).where(owned(responses, owner, key))).one_or_none()
    if row is None:
        raise _not_found(key)
    return _response(row, running)


def find_items(connection: Connection, owner: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Items by their ids, from the newest of an owner's responses that has each, or else a conversation.

    Raises:
        ApiError: 404, one of them is in none; 400, what has them is too long.
    """
    newest = (
        select(func.max(responses.c.number))
        .join(response_items, response_items.c.response == responses.c.number)
        .where(responses.c.owner == owner, response_items.c.id.in_(ids))
        .group_by(response_items.c.id)
    )
    within = responses.c.number.in_(newest)
    check_length(connection, select(json_length(responses)).where(within))
    rows = connection.execute(select(*_COLUMNS).where(within).order_by(responses.c.number))
    wanted = set(ids)
    items = said([StoredResponse(row.body, row.input) for row in rows])
    found = {item["id"]: item for item in items if item["id"] in wanted}
    found |= conversations.find_named(connection, owner, list(wanted - found.keys()))
    for key in ids:
        if key not in found:
            raise ApiError(
                404,
                f"Item '{key}' not found: no response or conversation that is kept has it. Send the item "
                "itself, or store the responses whose items you name.",
                param="input",
            )
    return found


def list_page(
    connection: Connection, owner: str, page: Page, model: str | None, running: Collection[str] = ()
) -> PageOf[StoredResponse]:
    """A page of an owner's responses.

    Args:
        connection: reads.
        owner: whose.
        page: which part of the list.
        model: only those of this model.
        running: see `find`.
    """
    query = select(*_COLUMNS)
    if model is not None:
        query = query.where(responses.c.model == model)
    found = fetch_page(connection, responses, query, responses.c.owner == owner, page)
    return PageOf([_response(row, running) for row in found.entries], found.has_more)


def chain(
    connection: Connection, owner: str, key: str, running: Collection[str] = ()
) -> list[StoredResponse]:
    """A response and those that it goes on from, the oldest first; arguments as for `find`.

    Raises:
        ApiError: 404, one of them is not there (any more); 400, they are too many or too long.
    """
    named = (responses.c.id, responses.c.previous)
    begin = select(*named, literal(0).label("depth")).where(owned(responses, owner, key))
    links = begin.cte("links", recursive=True)
    links = links.union_all(
        select(*named, links.c.depth + 1).where(
            responses.c.id == links.c.previous, responses.c.owner == owner, links.c.depth < MAX_CHAIN
        )
    )
    linked = responses.c.id == links.c.id
    check_length(connection, select(json_length(responses)).join(links, linked))
    query = select(*_COLUMNS, links.c.previous).join(links, linked)
    rows = list(connection.execute(query.order_by(links.c.depth.desc())))
    if not rows:
        raise _not_found(key)
    if len(rows) > MAX_CHAIN:
        raise ApiError(400, f"more than {MAX_CHAIN} responses go on from one another; begin anew")
    if rows[0].previous is not None:
        raise _not_found(rows[0].previous)
    return [_response(row, running) for row in rows]


def said(found: Sequence[StoredResponse]) -> list[dict[str, Any]]:
    """What was said in responses that go on from one another: inputs and outputs."""
    return [item for each in found for item in (*each.input, *each.body["output"])]


def cancel(connection: Connection, owner: str, key: str, running: Collection[str] = ()) -> StoredResponse:
    """End a response that is computed in the background; whoever computes it finds out.

    Arguments as for `find`.

    Raises:
        ApiError: 404, there is none of that id; 400, it is not computed in the background, or is over.
    """
    found = find(connection, owner, key, running)
    body = found.body
    if body["status"] == "cancelled":
        return found
    if not body["background"] or body["status"] not in _OPEN:
        state = "is not computed in the background" if not body["background"] else f"is {body['status']}"
        raise ApiError(400, f"response '{key}' cannot be cancelled: it {state}", code="not_cancellable")
    cancelled = StoredResponse({**body, "status": "cancelled"}, found.input)
    # Whoever computes it may have been faster, beside another server.
    return cancelled if finish(connection, owner, cancelled) else cancel(connection, owner, key, running)


def remove(connection: Connection, owner: str, key: str) -> None:
    """Delete a response; what goes on from it cannot be gone on from any more.

    Raises:
        ApiError: 404, the owner has none of that id.
    """
    if not connection.execute(delete(responses).where(owned(responses, owner, key))).rowcount:
        raise _not_found(key)


def _response(row: Any, running: Collection[str]) -> StoredResponse:
    body = row.body
    # A machine that slept, or whose clock was set, finds its own ones silent for long.
    if row.status in _OPEN and row.id not in running and row.alive_at < now() - _SILENT_S:
        error = {"code": "server_error", "message": "the server that computed this response ended"}
        body = {**body, "status": "failed", "error": error}
    return StoredResponse(body, row.input)


def _tell_conversation(connection: Connection, owner: str, response: StoredResponse) -> None:
    about = response.body.get("conversation")
    if about is not None:
        new = [*response.input, *response.body["output"]]
        conversations.add_items(connection, owner, about["id"], new)


def _note_items(connection: Connection, number: int, new: Sequence[dict[str, Any]]) -> None:
    if new:
        connection.execute(insert(response_items), [{"response": number, "id": item["id"]} for item in new])


def _not_found(key: str) -> ApiError:
    return ApiError(
        404, f"Response '{key:.200}' not found. Use 'client.responses.list()' to list available Responses."
    )
