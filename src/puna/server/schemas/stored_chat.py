"""Stored chat completions, as OpenAI's API has them."""

from __future__ import annotations

from typing import Any

from puna.server.schemas.base import Reply
from puna.server.schemas.chat import ChatCompletion
from puna.server.schemas.lists import ListReply

__all__ = ["StoredChat", "StoredChats", "StoredMessage", "StoredMessages"]


class StoredChat(ChatCompletion):
    """A completion as it was sent, with what it answers and what the client noted."""

    metadata: dict[str, str]
    input_messages: list[dict[str, Any]]


class StoredChats(ListReply):
    """A page of them."""

    data: list[StoredChat]


class StoredMessage(Reply):
    """A message that was answered; `content` is None where it came in parts."""

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, Any]] | None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StoredMessages(ListReply):
    """A page of them."""

    data: list[StoredMessage]
