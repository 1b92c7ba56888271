"""What the parser of tool calls says while an answer arrives."""

from __future__ import annotations

from dataclasses import dataclass

from puna.prompt.messages import ToolCall

__all__ = [
    "ArgumentsDelta",
    "CallEnded",
    "CallEvent",
    "CallFailed",
    "CallProblem",
    "CallStarted",
    "TextDelta",
]


@dataclass(frozen=True, slots=True)
class CallProblem:
    """Something that looked like a call and is none.

    Attributes:
        reason: what is wrong, for the model or a person to read.
        text: what was said up to where that shows, at most 1,000 characters; it stays in the answer's text.
    """

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call of a registered tool begins.

    Attributes:
        index: number of the call in its answer, from 0.
        name: the tool.
    """

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of a call's arguments.

    Attributes:
        index: the call.
        json: joined, these texts are the arguments as JSON.
    """

    index: int
    json: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is complete and its arguments are as the tool's schema says.

    Attributes:
        index: the call.
        call: the whole of it.
    """

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class CallFailed:
    """What looked like calls is text, which follows.

    Attributes:
        indexes: calls that had begun and are none; maybe no call had.
        problem: what is wrong, None where a call that had begun turned out to be plain text.
    """

    indexes: tuple[int, ...]
    problem: CallProblem | None


CallEvent = TextDelta | CallStarted | ArgumentsDelta | CallEnded | CallFailed
