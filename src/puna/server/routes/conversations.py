"""``/conversations`` and their items."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from puna.server import state
from puna.server.answers.items import as_item, keep, referenced, stored
from puna.server.response_context import find_referenced
from puna.server.schemas.base import Deleted, MetadataBody
from puna.server.schemas.conversations import Conversation, ConversationBody, ItemsBody
from puna.server.schemas.items import InputItem, Item
from puna.server.schemas.lists import After, Limit, OrderOf
from puna.server.schemas.response_replies import ItemPage
from puna.server.services import Client, Owner, Services, TheServices
from puna.server.state.conversations import Conversation as StoredConversation
from puna.server.state.pages import Page, PageOf
from puna.server.wire.page import page_reply
from puna.server.wire.reply import json_reply
from puna.server.wire.strict import StrictRoute

__all__ = [
    "create_conversation",
    "create_items",
    "delete_conversation",
    "delete_item",
    "get_conversation",
    "get_item",
    "list_items",
    "router",
    "update_conversation",
]

router = APIRouter(prefix="/conversations", tags=["conversations"], route_class=StrictRoute)


@router.post("", response_model=Conversation)
async def create_conversation(
    body: Annotated[ConversationBody, Body(default_factory=ConversationBody)],
    services: TheServices,
    client: Client,
    owner: Owner,
) -> Response:
    """Begin a conversation; without a body an empty one."""
    first = await _kept(services, body.items or [], client, owner)
    made = await services.state.write(state.conversations.add, owner, body.metadata or {}, first)
    return json_reply(_conversation(made))


@router.get("/{conversation_id}", response_model=Conversation)
async def get_conversation(conversation_id: str, services: TheServices, owner: Owner) -> Response:
    """One conversation."""
    return json_reply(
        _conversation(await services.state.read(state.conversations.find, owner, conversation_id))
    )


@router.post("/{conversation_id}", response_model=Conversation)
async def update_conversation(
    conversation_id: str, body: MetadataBody, services: TheServices, owner: Owner
) -> Response:
    """Replace a conversation's `metadata`."""
    labels = body.metadata or {}
    changed = await services.state.write(state.conversations.label, owner, conversation_id, labels)
    return json_reply(_conversation(changed))


@router.delete("/{conversation_id}", response_model=Deleted)
async def delete_conversation(conversation_id: str, services: TheServices, owner: Owner) -> Response:
    """Keep a conversation and its items no longer."""
    await services.state.delete(state.conversations.remove, owner, conversation_id)
    return json_reply(Deleted(id=conversation_id, object="conversation.deleted", deleted=True))


@router.get("/{conversation_id}/items", response_model=ItemPage)
async def list_items(
    conversation_id: str,
    services: TheServices,
    owner: Owner,
    after: After = None,
    limit: Limit = 20,
    order: OrderOf = "desc",
) -> Response:
    """What was said in a conversation."""
    page = await services.state.read(
        state.conversations.item_page, owner, conversation_id, Page(after, limit, order)
    )
    return await page_reply(page, as_item)


@router.post("/{conversation_id}/items", response_model=ItemPage)
async def create_items(
    conversation_id: str, body: ItemsBody, services: TheServices, client: Client, owner: Owner
) -> Response:
    """Add to the end of a conversation."""
    new = await _kept(services, body.items, client, owner)
    added = await services.state.write(state.conversations.add_items, owner, conversation_id, new)
    return await page_reply(PageOf(added, False), as_item)


@router.get("/{conversation_id}/items/{item_id}", response_model=Item)
async def get_item(conversation_id: str, item_id: str, services: TheServices, owner: Owner) -> Response:
    """One item."""
    found = await services.state.read(state.conversations.find_item, owner, conversation_id, item_id)
    return json_reply(as_item(found))


@router.delete("/{conversation_id}/items/{item_id}", response_model=Conversation)
async def delete_item(conversation_id: str, item_id: str, services: TheServices, owner: Owner) -> Response:
    """Take an item out of a conversation."""
    rest = await services.state.delete(state.conversations.remove_item, owner, conversation_id, item_id)
    return json_reply(_conversation(rest))


async def _kept(services: Services, given: list[InputItem], client: str, owner: str) -> list[dict[str, Any]]:
    async def made() -> list[dict[str, Any]]:
        found = await find_referenced(services.state, given, owner)
        return await asyncio.to_thread(lambda: stored(keep(given, found)))  # it may be megabytes

    return await (services.reading.run(client, made) if referenced(given) else made())


def _conversation(found: StoredConversation) -> Conversation:
    return Conversation(
        id=found.id, object="conversation", created_at=found.created_at, metadata=found.labels
    )
