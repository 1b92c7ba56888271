"""The events of a response that is streamed, as OpenAI's API has them."""

from __future__ import annotations

from typing import Literal

from puna.server.schemas.base import NamedEvent
from puna.server.schemas.items import ContentPart, Item, OutputLogprob
from puna.server.schemas.response_replies import Response

__all__ = [
    "ArgumentsDeltaEvent",
    "ArgumentsDoneEvent",
    "ItemEvent",
    "PartEvent",
    "ResponseEvent",
    "StateEvent",
    "TextDeltaEvent",
    "TextDoneEvent",
]


class ResponseEvent(NamedEvent):
    """What all events have."""

    sequence_number: int


class StateEvent(ResponseEvent):
    """The response as it is now."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: Response


class ItemEvent(ResponseEvent):
    """An item begins, or is whole; Llama Stack's clients need the response's id."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    response_id: str
    output_index: int
    item: Item


class PartEvent(ResponseEvent):
    """A part of a message begins, or is whole; Llama Stack's clients need the response's id."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart


class TextDeltaEvent(ResponseEvent):
    """More of a text."""

    type: Literal["response.output_text.delta"]
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[OutputLogprob]


class TextDoneEvent(ResponseEvent):
    """A text is whole."""

    type: Literal["response.output_text.done"]
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[OutputLogprob]


class ArgumentsDeltaEvent(ResponseEvent):
    """More of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(ResponseEvent):
    """A call's arguments are whole."""

    type: Literal["response.function_call_arguments.done"]
    item_id: str
    output_index: int
    name: str
    arguments: str
