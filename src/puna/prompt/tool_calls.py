"""Tool calls in a whole answer; `tool_stream.py` does the same while the answer arrives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from puna.prompt.call_events import CallEnded, CallEvent, CallFailed, CallProblem, TextDelta
from puna.prompt.messages import Assistant, ToolCall
from puna.prompt.tool_stream import ToolCallStream
from puna.prompt.tools import ToolDefinition

if TYPE_CHECKING:
    from puna.tokens import Tokenizer

__all__ = ["ParsedAnswer", "parse_tool_calls", "parse_tool_ids"]


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An answer, taken apart.

    Attributes:
        text: what belongs to no call.
        calls: the calls, in their order, all of registered tools and with arguments that suit them.
        problems: what looked like calls and is text.
        ends_turn: what the end mark says (see `ToolCallStream`); None where there is none.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    problems: tuple[CallProblem, ...] = ()
    ends_turn: bool | None = None

    def message(self) -> Assistant:
        """The answer as a message of the conversation."""
        return Assistant(self.text, self.ends_turn is not False, self.calls)


def parse_tool_calls(text: str, tools: Iterable[ToolDefinition]) -> ParsedAnswer:
    """Find the calls in an answer; nothing is run, and nothing is a call for want of something better.

    Args:
        text: the answer, special tokens written out.
        tools: those that may be called.

    Raises:
        PromptFormatError: the parameters of a tool are no JSON schema.
    """
    stream = ToolCallStream(tools)
    return _gather(stream, [*stream.push(text), *stream.finish()])


def parse_tool_ids(ids: Iterable[int], tools: Iterable[ToolDefinition], tokenizer: Tokenizer) -> ParsedAnswer:
    """`parse_tool_calls` for the tokens of an answer, where no text can pass for a special token.

    Raises:
        PromptFormatError: the parameters of a tool are no JSON schema.
        TokenizerError: an id is not in the vocabulary.
    """
    stream = ToolCallStream(tools, tokenizer)
    return _gather(stream, [*stream.push_ids(ids), *stream.finish()])


def _gather(stream: ToolCallStream, events: Iterable[CallEvent]) -> ParsedAnswer:
    texts, calls, problems = [], [], []
    for event in events:
        if isinstance(event, TextDelta):
            texts.append(event.text)
        elif isinstance(event, CallEnded):
            calls.append(event.call)
        elif isinstance(event, CallFailed) and event.problem is not None:
            problems.append(event.problem)
    return ParsedAnswer("".join(texts), tuple(calls), tuple(problems), stream.ends_turn)
