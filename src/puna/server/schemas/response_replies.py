"""Responses, and what else is sent of them, as OpenAI's API has them."""

from __future__ import annotations

from typing import Any, Literal

from puna.server.schemas.base import Reply
from puna.server.schemas.items import Item
from puna.server.schemas.lists import ListReply

__all__ = [
    "Compacted",
    "ConversationLink",
    "IncompleteDetails",
    "InputDetails",
    "InputTokens",
    "ItemPage",
    "ListedResponse",
    "OutputDetails",
    "Response",
    "ResponseError",
    "ResponsePage",
    "ResponseStatus",
    "ResponseUsage",
]

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class IncompleteDetails(Reply):
    """Why a response is not whole."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(Reply):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class InputDetails(Reply):
    """Parts of the prompt."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Reply):
    """Parts of the answer."""

    reasoning_tokens: int


class ResponseUsage(Reply):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ConversationLink(Reply):
    """The conversation that a response belongs to."""

    id: str


class Response(Reply):
    """A response. Every field is there, null where nothing was given."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[Item]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationLink | None
    prompt: dict[str, Any] | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any] | None
    safety_identifier: str | None
    service_tier: str | None
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    frequency_penalty: float
    presence_penalty: float
    truncation: str
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]


class ListedResponse(Response):
    """A response of a list, with what it answers."""

    input: list[Item]


class ResponsePage(ListReply):
    """A page of responses."""

    data: list[ListedResponse]


class ItemPage(ListReply):
    """A page of items."""

    data: list[Item]


class Compacted(Reply):
    """A conversation made short: what the user said, and a summary of all."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[Item]
    usage: ResponseUsage


class InputTokens(Reply):
    """How long a prompt is."""

    object: Literal["response.input_tokens"]
    input_tokens: int
