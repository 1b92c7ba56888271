"""Conversations, as OpenAI's API has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from puna.server.schemas.base import Body, Metadata, Reply
from puna.server.schemas.items import InputItem

__all__ = ["Conversation", "ConversationBody", "ItemsBody"]

MAX_NEW_ITEMS = 20
"""OpenAI's."""

NewItems = Annotated[list[InputItem], Field(max_length=MAX_NEW_ITEMS, fail_fast=True)]


class ConversationBody(Body):
    """A conversation to begin."""

    items: NewItems | None = None
    metadata: Metadata | None = None


class ItemsBody(Body):
    """Items to add to a conversation."""

    items: NewItems


class Conversation(Reply):
    """A conversation; its items are asked for by themselves."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]
