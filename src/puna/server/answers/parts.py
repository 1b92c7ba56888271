"""From an engine's events to the parts of an answer: text, tool calls, and why it ended.

Whatever wire format an answer is sent in, it is told from these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from puna.engine.request import Event
from puna.engine.stop import StopTexts
from puna.prompt import ToolCallStream
from puna.prompt.call_events import (
    ArgumentsDelta,
    CallEnded,
    CallEvent,
    CallFailed,
    CallStarted,
    TextDelta,
)
from puna.prompt.tool_schema import ToolSet
from puna.tokens import Tokenizer

__all__ = ["AnswerParts", "EndReason", "Part", "WholeCall", "whole_calls"]

EndReason = Literal["stop", "length", "tool_calls"]
Part = TextDelta | CallStarted | ArgumentsDelta
"""More text, the beginning of a call, or more of its arguments. Calls are numbered from 0."""


@dataclass(frozen=True, slots=True)
class WholeCall:
    """A call that an answer made.

    Attributes:
        index: its number.
        name: of the tool.
        arguments: a JSON object.
    """

    index: int
    name: str
    arguments: str


def whole_calls(parts: Sequence[Part]) -> list[WholeCall]:
    """The calls that an answer's parts make up."""
    arguments: dict[int, str] = {}
    for part in parts:
        if isinstance(part, ArgumentsDelta):
            arguments[part.index] = arguments.get(part.index, "") + part.json
    return [
        WholeCall(part.index, part.name, arguments.get(part.index, ""))
        for part in parts
        if isinstance(part, CallStarted)
    ]


class AnswerParts:
    """Takes the events of one answer and tells its parts as soon as they are certain.

    A call is told once it is whole and suits its tool's schema, because clients cannot take back what they
    were told; what is no such call is text. Only where an answer can be nothing but calls, those that a limit
    cut are told as far as they came.

    Stop texts are those of the answer's text: what is said in a call ends nothing, and none reaches over a
    call. With tools they are looked for here, since only here it is known what is text; else by the engine.

    Attributes:
        end: why the answer ended, None while it goes on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: ToolSet | None,
        *,
        stop_texts: Sequence[str],
        allows_several_calls: bool,
        must_call: bool,
    ) -> None:
        """Start before an answer.

        Args:
            tokenizer: the model's.
            tools: those that may be called, None for plain text.
            stop_texts: texts that end the answer where it may have calls.
            allows_several_calls: whether the answer goes on behind its first call.
            must_call: whether the answer is held to calls and nothing else.
        """
        self._stream = ToolCallStream(tools, tokenizer) if tools else None
        self._stop = StopTexts(stop_texts)
        self._allows_several = allows_several_calls
        self._must_call = must_call
        self._held: dict[int, list[Part]] = {}
        self._n_calls = 0
        self.end: EndReason | None = None

    def push(self, event: Event) -> list[Part]:
        """Take an event, the last of which ends the answer.

        Returns:
            What is certain now.
        """
        if self.end is not None:
            return []
        parts = self._parts(event)
        if event.finish_reason is not None and self.end is None:
            # What was cut by the operator's order to stop is cut, as by a limit.
            self._finish("stop" if event.finish_reason == "stop" else "length")
        return parts

    def _finish(self, reason: EndReason) -> None:
        self.end = "tool_calls" if self._n_calls else reason

    def _parts(self, event: Event) -> list[Part]:
        if self._stream is None:
            return _text(event.text)
        parts = list(self._certain(self._stream.push_ids(event.tokens)))
        if event.is_last and self.end is None:
            is_cut = event.finish_reason != "stop"
            parts += self._certain(self._stream.finish(is_cut=is_cut), is_cut=self._must_call and is_cut)
        if event.is_last and self.end is None:
            parts += _text(self._stop.finish())
        return parts

    def _certain(self, events: Iterable[CallEvent], *, is_cut: bool = False) -> Iterable[Part]:
        """What events tell; of calls that were cut, all that was said."""
        for event in events:
            if isinstance(event, TextDelta):
                text, is_met = self._stop.push(event.text)
                yield from _text(text)
                if is_met:
                    self._finish("stop")
                    return
            elif isinstance(event, CallStarted):
                self._held[event.index] = [event]
            elif isinstance(event, ArgumentsDelta):
                self._held[event.index].append(event)
            elif isinstance(event, CallFailed) and event.indexes and is_cut:
                for index in event.indexes:
                    yield from self._numbered(self._held.pop(index))
                self.end = "length"
                return
            elif isinstance(event, CallFailed):
                for index in event.indexes:
                    del self._held[index]
            elif isinstance(event, CallEnded):
                yield from _text(self._stop.finish())  # it stands in front of the call
                yield from self._numbered(self._held.pop(event.index))
                if not self._allows_several:
                    self._finish("tool_calls")
                    return

    def _numbered(self, held: Iterable[Part]) -> Iterable[Part]:
        """A call under the number that it has among those that were told."""
        for part in held:
            if isinstance(part, CallStarted):
                yield CallStarted(self._n_calls, part.name)
            elif isinstance(part, ArgumentsDelta):
                yield ArgumentsDelta(self._n_calls, part.json)
        self._n_calls += 1


def _text(text: str) -> list[Part]:
    return [TextDelta(text)] if text else []
