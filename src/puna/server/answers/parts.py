"""From an engine's events to the parts of an answer: text, tool calls, and why it ended.

Whatever wire format an answer is sent in, it is told from these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from puna.engine.request import Event, TokenLogprob
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
    were told; what is no such call is text.

    Attributes:
        logprobs: of the tokens of the last event.
        end: why the answer ended, None while it goes on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: ToolSet | None,
        *,
        stop_texts: Sequence[str],
        allows_several_calls: bool,
    ) -> None:
        """Start before an answer.

        Args:
            tokenizer: the model's.
            tools: those that may be called, None for plain text.
            stop_texts: texts that end the answer, outside of calls.
            allows_several_calls: whether the answer goes on behind its first call.
        """
        self._stream = ToolCallStream(tools, tokenizer) if tools else None
        # The engine looks for stop texts in the whole text; a call's is no text any more.
        self._stop = StopTexts(stop_texts)
        self._allows_several = allows_several_calls
        self._held: dict[int, list[Part]] = {}
        self._n_calls = 0
        self._is_cut = False
        self.logprobs: Sequence[TokenLogprob] = ()
        self.end: EndReason | None = None

    def push(self, event: Event) -> list[Part]:
        """Take an event, the last of which ends the answer.

        Returns:
            What is certain now.
        """
        self.logprobs = event.logprobs
        if self.end is not None:
            return []
        parts = self._parts(event)
        if event.finish_reason is not None and self.end is None:
            if self._n_calls:
                self.end = "tool_calls"
            else:
                # What was cut by the operator's order to stop is cut, as by a limit.
                self.end = "stop" if event.finish_reason == "stop" else "length"
        return parts

    def _parts(self, event: Event) -> list[Part]:
        if self._stream is None:
            return [TextDelta(event.text)] if event.text else []
        events = self._stream.push_ids(event.tokens)
        if event.is_last:
            events += self._stream.finish()
        parts = list(self._certain(events))
        if event.is_last and not self._is_cut:
            parts += _text(self._stop.finish())
        return parts

    def _certain(self, events: Iterable[CallEvent]) -> Iterable[Part]:
        for event in events:
            if isinstance(event, TextDelta):
                if not self._is_cut:
                    text, self._is_cut = self._stop.push(event.text)
                    yield from _text(text)
            elif isinstance(event, CallStarted):
                self._held[event.index] = []
                self._held[event.index].append(event)
            elif isinstance(event, ArgumentsDelta):
                self._held[event.index].append(event)
            elif isinstance(event, CallFailed):
                for index in event.indexes:
                    del self._held[index]
            elif isinstance(event, CallEnded):
                yield from self._numbered(self._held.pop(event.index))
                if not self._allows_several:
                    self.end = "tool_calls"
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
