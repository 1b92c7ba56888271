"""What a response goes on from: earlier responses or a conversation, a stored prompt, and its own input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from puna.server import state
from puna.server.answers.items import as_items, keep, referenced
from puna.server.answers.response_request import chat_of
from puna.server.errors import ApiError, about
from puna.server.schemas.chat import ChatBody
from puna.server.schemas.items import InputItem, Item
from puna.server.schemas.prompts import PLACE
from puna.server.schemas.responses import PromptRef, ResponseInput
from puna.server.services import Services
from puna.server.state.store import State

__all__ = ["ResponseContext", "fill_in", "find_referenced", "gather_context", "gather_in_turn"]

_MAX_CHARACTERS = 4 << 20  # of a prompt once it is filled in, and of named items; as much as a body may have


@dataclass(frozen=True, slots=True)
class ResponseContext:
    """What a response goes on from.

    Attributes:
        chat: all of it, as a chat request.
        items: all that was said, the response's own input included.
        new: the response's own input.
        prompt: the stored prompt that it uses, as the response tells it.
    """

    chat: ChatBody
    items: Sequence[Item]
    new: Sequence[Item]
    prompt: dict[str, Any] | None


async def gather_context(services: Services, body: ResponseInput, model: str, owner: str) -> ResponseContext:
    """Find everything that a response goes on from.

    Args:
        services: the server's.
        body: the request.
        model: what is to answer.
        owner: whose things may be used.

    Raises:
        ApiError: 400, it cannot go on from that, or see `chat_of`; 404, something is not there.
    """
    if body.previous_response_id is not None and body.conversation_id is not None:
        raise ApiError(
            400,
            "a response goes on from `previous_response_id` or is part of a `conversation`; give one of them",
            param="conversation",
        )
    store = services.state
    earlier: list[dict[str, Any]] = []
    if body.previous_response_id is not None:
        running = services.background.running
        with about("previous_response_id", missing="previous_response_not_found"):
            chain = await store.read(state.responses.chain, owner, body.previous_response_id, running)
        status = chain[-1].body["status"]
        if status in ("queued", "in_progress"):
            raise ApiError(
                400, f"the previous response is {status}; wait until it is over", param="previous_response_id"
            )
        earlier = state.responses.said(chain)
    elif body.conversation_id is not None:
        with about("conversation"):
            earlier = await store.read(state.conversations.said, owner, body.conversation_id)
    with about("input"):
        found = await find_referenced(store, body.input, owner)
    prompt, standing = None, [body.instructions or ""]
    if body.prompt is not None:
        version = int(body.prompt.version) if body.prompt.version else None
        with about("prompt"):
            stored = await store.read(state.prompts.find, owner, body.prompt.id, version)
        standing.insert(0, fill_in(stored.text or "", body.prompt))
        prompt = {**body.prompt.model_dump(), "version": str(stored.version)}
    if earlier or found:  # it may be megabytes, which take a while
        return await asyncio.to_thread(_assembled, body, model, earlier, found, standing, prompt)
    return _assembled(body, model, earlier, found, standing, prompt)


async def gather_in_turn(
    services: Services, body: ResponseInput, model: str, client: str, owner: str
) -> ResponseContext:
    """Find everything that a response goes on from; see `gather_context`. To read what is kept takes a turn.

    Args:
        services: the server's.
        body: the request.
        model: what is to answer.
        client: who asks, for fair turns.
        owner: whose things may be used.

    Raises:
        ApiError: as `gather_context`, and 429 where too many wait for such a turn.
    """
    gather = partial(gather_context, services, body, model, owner)
    if body.previous_response_id or body.conversation_id or body.prompt or referenced(body.input):
        return await services.reading.run(client, gather)
    return await gather()


async def find_referenced(
    store: State, given: str | Sequence[InputItem], owner: str
) -> dict[str, dict[str, Any]]:
    """The items that a client named in place of sending them, by their ids.

    Args:
        store: what the server keeps.
        given: what the client sent.
        owner: whose items may be used.

    Raises:
        ApiError: 404, one is not there; 400, one is named twice, or they are longer than a body may be.
    """
    ids = referenced(given)
    if not ids:
        return {}
    found = await store.read(state.responses.find_items, owner, ids)
    if len(found) < len(ids):
        raise ApiError(400, "an item is named twice; name each once", param="input")
    # A response keeps them once more: naming them must not store more than sending them could.
    n_characters = await asyncio.to_thread(lambda: sum(len(json.dumps(item)) for item in found.values()))
    if n_characters > _MAX_CHARACTERS:
        raise ApiError(
            400,
            f"the items that are named may have {_MAX_CHARACTERS} characters together and have "
            f"{n_characters}; go on from a `previous_response_id`",
            param="input",
            code="conversation_full",
        )
    return found


def _assembled(
    body: ResponseInput,
    model: str,
    earlier: list[dict[str, Any]],
    found: dict[str, dict[str, Any]],
    standing: list[str],
    prompt: dict[str, Any] | None,
) -> ResponseContext:
    new = keep(body.input, found)
    items = [*as_items(earlier), *new]
    with about("input"):
        chat = chat_of(body, model, items, standing)
    return ResponseContext(chat, items, new, prompt)


def fill_in(text: str, prompt: PromptRef) -> str:
    """A stored prompt with its variables in their places.

    Args:
        text: the prompt's.
        prompt: has the variables.

    Raises:
        ApiError: 400, one is missing, or the whole is too long.
    """
    values = {
        name: value if isinstance(value, str) else value.text
        for name, value in (prompt.variables or {}).items()
    }

    n_characters = len(text)
    for place in PLACE.finditer(text):
        if place[1] not in values:
            raise ApiError(400, f"the prompt needs the variable {place[1]!r}", param="prompt.variables")
        n_characters += len(values[place[1]])
        if n_characters > _MAX_CHARACTERS:
            raise ApiError(
                400,
                f"the prompt with its variables may have {_MAX_CHARACTERS} characters and has more; "
                "shorten a variable, or name it less often",
                param="prompt.variables",
            )
    return PLACE.sub(lambda place: values[place[1]], text)
