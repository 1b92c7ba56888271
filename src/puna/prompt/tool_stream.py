"""The parser of tool calls; `docs/tool_calls.md` has its rules, `call_forms.py` the forms of a call.

Text is passed on as soon as it cannot belong to a call. Each character is looked at once, whatever a model
says, so that an answer takes time in proportion to its length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from puna.prompt.call_events import (
    ArgumentsDelta,
    CallEnded,
    CallEvent,
    CallFailed,
    CallProblem,
    TextDelta,
)
from puna.prompt.call_forms import FIRST_KEYS, CallForms
from puna.prompt.call_marks import AnswerMarks
from puna.prompt.call_source import TAG, NotACall, Source, Wait
from puna.prompt.call_text import PYTHON_TAG
from puna.prompt.messages import ToolCall
from puna.prompt.tool_schema import ToolSet
from puna.prompt.tools import CODE_INTERPRETER, ToolDefinition

if TYPE_CHECKING:
    from puna.tokens import Tokenizer

__all__ = ["ToolCallStream"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_TAG = re.compile(f"[^{TAG}]*")
_LINE = re.compile(f"[^\n{TAG}]*")
_LINE_ENDS = re.compile(r"\n*")
# Whole lines in which no call can be.
_DULL_LINES = re.compile(f"[^{{<\\[(`{TAG}]*\n")
# Text in which no call begins. A bracket is passed over where what is behind it, as far as it takes to tell,
# belongs to no call.
_OTHER_KEY = rf'"(?!(?:{"|".join(FIRST_KEYS)})")(?s:.){{{max(map(len, FIRST_KEYS)) + 1}}}'
_PLAIN = re.compile(rf'(?:[^\n{{<{TAG}]|\{{(?=[^\s"]|{_OTHER_KEY})|<(?=[^f|]|f[^u]|\|[^p]))*')
_BLANKS = re.compile(r"[ \t]*")
_SPACE = re.compile(r"\s*")
_BACKQUOTES = re.compile("`*")
_FENCE = 3
_CODE = CODE_INTERPRETER.name
_MAX_PROBLEM_TEXT = 1_000


class ToolCallStream:
    """Parts an answer into text and calls while it arrives.

    Attributes:
        ends_turn: whether the end mark of the answer ends the turn (True) or waits for a tool's result
            (False); None where no such mark was seen.
    """

    def __init__(self, tools: ToolSet | Iterable[ToolDefinition], tokenizer: Tokenizer | None = None) -> None:
        """Start before an answer.

        Args:
            tools: those that may be called; whatever else looks like a call is text. For several answers
                a `ToolSet` is made once.
            tokenizer: the model's, where ids are pushed. Only the token then counts as ``<|python_tag|>``,
                and nothing is stripped; with texts the word counts wherever a call may begin.

        Raises:
            PromptFormatError: the parameters of a tool are no JSON schema.
        """
        self._tools = tools if isinstance(tools, ToolSet) else ToolSet(tools)
        self._source = Source()
        self._events: list[CallEvent] = []
        self._forms = CallForms(self._source, self._tools, self._events.append)
        self._parser = self._answer()
        self._marks = AnswerMarks() if tokenizer is None else None
        self._tokenizer = tokenizer
        self._is_cut = False
        self.ends_turn: bool | None = None
        if tokenizer is not None:
            from puna.tokens import TextStream

            self._decoder = TextStream(tokenizer)

    def push(self, text: str) -> list[CallEvent]:
        """Add text of the answer, special tokens written out.

        Returns:
            What is certain now.
        """
        text = _SURROGATE.sub("\ufffd", text)
        return self._feed(self._marks.push(text) if self._marks is not None else text)

    def push_ids(self, ids: Iterable[int]) -> list[CallEvent]:
        """Add tokens of the answer.

        Returns:
            What is certain now.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        if self._tokenizer is None:
            raise ValueError("push_ids needs a stream that was made with a tokenizer")
        text = ""
        for token in ids:
            if not self._tokenizer.is_special(token):
                text += self._decoder.push(token)
                continue
            name = self._tokenizer.special_text(token)
            if name == PYTHON_TAG:
                text += self._decoder.finish() + TAG
            elif name in ("<|eot_id|>", "<|eom_id|>"):
                self.ends_turn = name == "<|eot_id|>"
        return self._feed(text)

    def finish(self, *, is_cut: bool = False) -> list[CallEvent]:
        """End the answer.

        Args:
            is_cut: whether a limit ended it, so that a program which goes on up to here is not complete.

        Returns:
            What is left; a call that is not complete is text.
        """
        self._is_cut = is_cut
        if self._marks is not None:
            rest = self._marks.finish()
            self.ends_turn = self._marks.ends_turn
        else:
            rest = self._decoder.finish()
        self._source.feed(rest)
        self._source.end()
        return self._run()

    def _feed(self, text: str) -> list[CallEvent]:
        if not text:
            return []
        self._source.feed(text)
        return self._run()

    def _run(self) -> list[CallEvent]:
        next(self._parser, None)
        events = _joined(self._events)
        self._events.clear()
        return events

    def _answer(self) -> Wait[None]:
        """The whole answer: lines of text, in which calls may stand, and what is behind tags."""
        source = self._source
        starts_line, is_quoted = True, False
        while character := (yield from source.peek()):
            if starts_line and (dull := source.here(_DULL_LINES) or source.here(_BLANKS)):
                self._say_text(dull)
                continue
            may_begin = starts_line and (character in "{[<" or _is_word(character))
            is_written = character == "<" and not is_quoted and (yield from self._is_written_tag())
            if character == TAG or is_written:
                yield from self._take_tag()
                yield from self._tagged()
                starts_line = False
                continue
            if character == "\n":
                self._say_text(source.here(_LINE_ENDS))
                starts_line = True
                continue
            if starts_line and character == "`":
                ticks = yield from source.run(_BACKQUOTES)
                self._say_text(ticks)
                is_quoted ^= len(ticks) >= _FENCE
            elif is_quoted:
                self._say_text(source.here(_LINE))
            elif not may_begin and (plain := source.here(_PLAIN)):
                self._say_text(plain)
            elif not self._tools:
                self._say_text((yield from source.take()))
            else:
                calls = self._tag_call() if character == "<" else self._calls(_BLANKS)
                starts_line = yield from self._try(calls)
                continue
            starts_line = False

    def _is_written_tag(self) -> Wait[bool]:
        """Whether ``<|python_tag|>`` stands here as a word, where words count."""
        if self._marks is None:
            return False
        for length in range(1, len(PYTHON_TAG) + 1):
            if (yield from self._source.peek(length)) != PYTHON_TAG[:length]:
                return False
        return True

    def _take_tag(self) -> Wait[None]:
        if (yield from self._source.peek()) == TAG:
            self._source.pass_tag()
            return
        for _ in PYTHON_TAG:
            yield from self._source.take()

    def _try(self, calls: Wait[None]) -> Wait[bool]:
        """Read calls, or text where they are none; the result is whether a new line starts behind."""
        self._begin()
        try:
            yield from calls
        except NotACall as error:
            text = self._source.marked()
            self._fail(error, text)
        else:
            text = self._accept()
        return text.endswith("\n")

    def _tag_call(self) -> Wait[None]:
        yield from self._source.take()
        yield from self._forms.function_tag()

    def _calls(self, between: re.Pattern[str]) -> Wait[None]:
        """One call or several, up to the end of their line; of the answer where lines may be between them."""
        source, forms = self._source, self._forms
        while True:
            character = yield from source.peek()
            if character == "{":
                yield from forms.json_object()
            elif character == "[":
                yield from forms.python_list()
            elif character == "<":
                yield from self._tag_call()
            else:
                yield from forms.builtin()
            yield from source.run(between)
            if (yield from source.peek()) in (",", ";"):
                yield from source.take()
                yield from source.run(between)
            character = yield from source.peek()
            if character == "\n":
                # The line was the calls', so its end is no text either.
                yield from source.take()
            if character in ("", "\n", TAG):
                return

    def _tagged(self) -> Wait[None]:
        """What stands behind a tag: calls, or else a program."""
        self._begin()
        try:
            yield from self._source.space()
            character = yield from self._source.peek()
            if not character or not (character in "{[<" or _is_word(character)):
                raise NotACall(None)
            yield from self._calls(_SPACE)
        except NotACall as error:
            text = self._source.marked()
            if self._forms.started or self._forms.is_refused or self._is_cut:
                self._fail(error, text)  # where it is cut, a call's name may have been meant
            else:
                yield from self._program(text)
        else:
            self._accept()

    def _program(self, start: str) -> Wait[None]:
        """A program, which goes on up to the next tag."""
        self._forms.reset()
        try:
            if _CODE not in self._tools:
                raise NotACall("the answer is a program, and there is no code interpreter to run it")
            self._forms.start(_CODE)
        except NotACall as error:
            self._events.append(CallFailed((), CallProblem(str(error.reason), start[:_MAX_PROBLEM_TEXT])))
            self._say_text(start)
            while (yield from self._source.peek()) not in ("", TAG):
                self._say_text(self._source.here(_NOT_TAG))
            return
        (index,) = self._forms.started
        parts = [start]
        self._events.append(ArgumentsDelta(index, '{"code": "' + _escaped(start)))
        while (yield from self._source.peek()) not in ("", TAG):
            parts.append(self._source.here(_NOT_TAG))
            self._events.append(ArgumentsDelta(index, _escaped(parts[-1])))
        if self._is_cut and not (yield from self._source.peek()):
            text = "".join(parts)
            problem = CallProblem("the program is cut", text[:_MAX_PROBLEM_TEXT])
            self._events.append(CallFailed((index,), problem))
            self._say_text(text)
            return
        self._events.append(ArgumentsDelta(index, '"}'))
        self._events.append(CallEnded(index, ToolCall(_CODE, {"code": "".join(parts)})))

    def _begin(self) -> None:
        self._source.mark()
        self._forms.reset()

    def _accept(self) -> str:
        self._events += [CallEnded(index, call) for index, call in self._forms.calls]
        return self._source.marked()

    def _fail(self, error: NotACall, text: str) -> None:
        reason = error.reason
        if reason is None and self._forms.calls:
            reason = "text stands behind a call, which must be the last thing on its line"
        is_call = bool(self._forms.started) or self._forms.is_refused
        problem = CallProblem(reason, text[:_MAX_PROBLEM_TEXT]) if reason and is_call else None
        if problem or self._forms.started:
            self._events.append(CallFailed(tuple(self._forms.started), problem))
        self._say_text(text)

    def _say_text(self, text: str) -> None:
        if text:
            self._events.append(TextDelta(text))


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _joined(events: Iterable[CallEvent]) -> list[CallEvent]:
    """The same events, neighbouring pieces of one text as one."""
    joined: list[CallEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(last.text + event.text)
        elif (
            isinstance(event, ArgumentsDelta)
            and isinstance(last, ArgumentsDelta)
            and event.index == last.index
        ):
            joined[-1] = ArgumentsDelta(event.index, last.json + event.json)
        else:
            joined.append(event)
    return joined
