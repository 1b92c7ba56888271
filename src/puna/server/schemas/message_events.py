"""The events of a message that is streamed, as Anthropic's API has them."""

from __future__ import annotations

from typing import Literal

from puna.server.schemas.base import NamedEvent, Reply
from puna.server.schemas.messages import Block, DeltaUsage, MessageReply, StopReason

__all__ = [
    "BlockDelta",
    "BlockStart",
    "BlockStop",
    "InputDelta",
    "MessageDelta",
    "MessageEnd",
    "MessageStart",
    "MessageStop",
    "Ping",
    "TextDelta",
]


class MessageStart(NamedEvent):
    """The answer begins."""

    type: Literal["message_start"]
    message: MessageReply


class Ping(NamedEvent):
    """A sign of life."""

    type: Literal["ping"]


class BlockStart(NamedEvent):
    """A block begins."""

    type: Literal["content_block_start"]
    index: int
    content_block: Block


class TextDelta(Reply):
    """More of a text."""

    type: Literal["text_delta"]
    text: str


class InputDelta(Reply):
    """More of a call's input."""

    type: Literal["input_json_delta"]
    partial_json: str


class BlockDelta(NamedEvent):
    """More of a block."""

    type: Literal["content_block_delta"]
    index: int
    delta: TextDelta | InputDelta


class BlockStop(NamedEvent):
    """A block is whole."""

    type: Literal["content_block_stop"]
    index: int


class MessageEnd(Reply):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(NamedEvent):
    """The answer ends."""

    type: Literal["message_delta"]
    delta: MessageEnd
    usage: DeltaUsage


class MessageStop(NamedEvent):
    """Nothing follows."""

    type: Literal["message_stop"]
