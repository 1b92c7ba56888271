"""``/chat/completions``: those that were stored."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response

from puna.server import state
from puna.server.errors import ApiError
from puna.server.schemas.base import Deleted, MetadataBody
from puna.server.schemas.lists import After, Limit, ModelFilter, OrderOf
from puna.server.schemas.stored_chat import StoredChat, StoredChats, StoredMessage, StoredMessages
from puna.server.services import Owner, TheServices
from puna.server.state.completions import StoredCompletion
from puna.server.state.pages import Page, paged
from puna.server.wire.page import page_reply
from puna.server.wire.reply import json_reply, stored_reply
from puna.server.wire.strict import StrictRoute

__all__ = [
    "delete_chat_completion",
    "get_chat_completion",
    "list_chat_completions",
    "list_chat_messages",
    "router",
    "update_chat_completion",
]

_LABEL = re.compile(r"metadata\[([^\x00]{1,64})\]")
_MESSAGE = ("role", "name", "refusal", "tool_calls", "tool_call_id")

router = APIRouter(prefix="/chat/completions", tags=["stored chat completions"], route_class=StrictRoute)


@router.get("", response_model=StoredChats)
async def list_chat_completions(
    request: Request,
    services: TheServices,
    owner: Owner,
    model: ModelFilter = None,
    after: After = None,
    limit: Limit = 20,
    order: OrderOf = "asc",
) -> Response:
    """List completions; `metadata[NAME]=VALUE` finds those that were given it."""
    labels = {
        found[1]: value
        for name, value in request.query_params.multi_items()
        if (found := _LABEL.fullmatch(name))
    }
    if any("\x00" in value for value in labels.values()):
        raise ApiError(400, "`metadata` has no NUL characters", param="metadata")
    page = await services.state.read(
        state.completions.list_page, owner, Page(after, limit, order), model, labels
    )
    return await page_reply(page, _chat)


@router.get("/{completion_id}", response_model=StoredChat)
async def get_chat_completion(completion_id: str, services: TheServices, owner: Owner) -> Response:
    """One completion."""
    return stored_reply(_values(await services.state.read(state.completions.find, owner, completion_id)))


@router.post("/{completion_id}", response_model=StoredChat)
async def update_chat_completion(
    completion_id: str, body: MetadataBody, services: TheServices, owner: Owner
) -> Response:
    """Replace a completion's `metadata`."""
    labels = body.metadata or {}
    changed = await services.state.write(state.completions.label, owner, completion_id, labels)
    return stored_reply(_values(changed))


@router.delete("/{completion_id}", response_model=Deleted)
async def delete_chat_completion(completion_id: str, services: TheServices, owner: Owner) -> Response:
    """Keep a completion no longer."""
    await services.state.delete(state.completions.remove, owner, completion_id)
    return json_reply(Deleted(id=completion_id, object="chat.completion.deleted", deleted=True))


@router.get("/{completion_id}/messages", response_model=StoredMessages)
async def list_chat_messages(
    completion_id: str,
    services: TheServices,
    owner: Owner,
    after: After = None,
    limit: Limit = 20,
    order: OrderOf = "asc",
) -> Response:
    """The messages that a completion answers."""
    found = await services.state.read(state.completions.find, owner, completion_id)
    messages = [{"id": f"{completion_id}-{i}", **message} for i, message in enumerate(found.messages)]
    return await page_reply(paged(messages, Page(after, limit, order)), _message)


def _chat(stored: StoredCompletion) -> StoredChat:
    return StoredChat.model_validate(_values(stored))


def _values(stored: StoredCompletion) -> dict[str, Any]:
    return {**stored.body, "metadata": stored.labels, "input_messages": stored.messages}


def _message(stored: dict[str, Any]) -> StoredMessage:
    content = stored.get("content")
    in_parts = isinstance(content, list)
    return StoredMessage(
        id=stored["id"],
        content=None if in_parts else content,
        content_parts=content if in_parts else None,
        **{name: stored[name] for name in _MESSAGE if name in stored},
    )
