"""The four forms of a call, each as a small parser; see ``docs/tool_calls.md`` for the rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from puna.prompt.call_events import ArgumentsDelta, CallEvent, CallStarted
from puna.prompt.call_source import TAG, NotACall, Source, Wait
from puna.prompt.call_values import parse_json, read_json, read_members, read_python, read_text
from puna.prompt.messages import ToolCall
from puna.prompt.tool_schema import ToolSet

__all__ = ["FIRST_KEYS", "MAX_CALLS", "CallForms"]

MAX_CALLS = 128
"""How many calls one answer may hold."""

# A tool's name, with dots and dashes for those that have them.
_NAME = re.compile(r"[\w.-]*")
_TAG_NAME = re.compile(rf"[^<>{{}}\s{TAG}]*")
_LETTERS = re.compile("[a-z]*")
_TAG = "function="
_END_TAG = "</function>"
FIRST_KEYS = ("name", "type", "parameters", "arguments", "id")
"""How an object begins that might be a call; any other one is text at its first key."""

_ARGUMENT_KEYS = ("parameters", "arguments")


class CallForms:
    """Reads one call at the place where a source is, and says as much of it as is certain.

    Attributes:
        calls: those read so far that nobody has taken yet, with their indexes.
        started: indexes of calls that have begun, whether or not they came to an end.
        is_refused: what was read is a call, but of a tool that is not registered, or one call too many.
    """

    def __init__(self, source: Source, tools: ToolSet, say: Callable[[CallEvent], None]) -> None:
        """Read from a source.

        Args:
            source: where the text is.
            tools: those that may be called.
            say: is told of calls that begin, and of their arguments.
        """
        self._source = source
        self._tools = tools
        self._say = say
        self._next = 0
        self._has_said = False
        self.is_refused = False
        self.calls: list[tuple[int, ToolCall]] = []
        self.started: list[int] = []

    def json_object(self) -> Wait[None]:
        """``{"name": "f", "parameters": {...}}``, with ``arguments`` for ``parameters`` too.

        Raises:
            NotACall: it is another object, names no registered tool or does not suit the tool.
        """
        source = self._source
        yield from source.expect("{", None)
        key = yield from self._first_key()
        name: str | None = None
        arguments: Any = {}
        while True:
            yield from source.space()
            yield from source.expect(":", f"`:` must stand behind the key {key!r}")
            yield from source.space()
            if key == "name":
                if name is not None:
                    raise NotACall("`name` is there twice")
                name = yield from self._json_name()
            elif key in _ARGUMENT_KEYS:
                arguments = yield from self._json_arguments(name)
            else:
                yield from read_json(source, 1)
            yield from source.space()
            following = yield from source.take()
            if following == "}":
                break
            if following != ",":
                raise NotACall(f"`,` or `}}` must stand before {following or 'the end'!r}")
            yield from source.space()
            key = yield from read_text(source, is_python=False)
        if name is None:
            raise NotACall(None)
        self._end(name, arguments)

    def _first_key(self) -> Wait[str]:
        """Read a key that a call may begin with, and nothing beyond the first character of any other."""
        yield from self._source.space()
        yield from self._source.expect('"', None)
        key = yield from self._source.run(_LETTERS)
        if key not in FIRST_KEYS:
            raise NotACall(None)
        yield from self._source.expect('"', None)
        return key

    def _json_name(self) -> Wait[str]:
        name = yield from read_text(self._source, is_python=False)
        if name not in self._tools:
            # Much JSON has a "name"; only what goes on like a call is worth a diagnosis.
            yield from self._source.space()
            looks_on = (yield from self._source.peek()) == ","
            if looks_on:
                yield from self._source.take()
                yield from self._source.space()
                looks_on = (yield from self._source.peek()) == '"'
            key = (yield from read_text(self._source, is_python=False)) if looks_on else ""
            raise self._unknown(name) if key in _ARGUMENT_KEYS else NotACall(None)
        self.start(name)
        return name

    def _json_arguments(self, name: str | None) -> Wait[Any]:
        first = yield from self._source.peek()
        if first == '"':
            return parse_json((yield from read_text(self._source, is_python=False)))
        if first == "{" and name is not None:
            return (yield from self._object(name, may_be_python=False))
        return (yield from read_json(self._source))

    def _object(self, name: str, *, may_be_python: bool) -> Wait[dict[str, Any]]:
        """Read arguments that are an object, and pass on their text as it comes."""
        source = self._source
        tap = None if self._tools.is_builtin(name) else self._say_arguments
        source.start_tap(tap)
        try:
            yield from source.take()
            yield from source.space()
            if not may_be_python or (yield from source.peek()) != "'":
                return (yield from read_members(source, is_python=False))
            source.stop_tap()
            arguments = yield from read_members(source, is_python=True)
            if tap is not None:
                tap(_json(arguments)[1:])
            return arguments
        finally:
            source.stop_tap()

    def function_tag(self) -> Wait[None]:
        """``<function=f>{...}</function>``, whose ``<`` is taken already; the end may be missing.

        Raises:
            NotACall: it is another tag, or as for `json_object`.
        """
        source = self._source
        for character in _TAG:
            yield from source.expect(character, None)
        name = yield from source.run(_TAG_NAME)
        yield from source.expect(">", None)
        if name not in self._tools:
            raise self._unknown(name)
        self.start(name)
        if (yield from source.peek()) != "{":
            raise NotACall(f"the arguments must follow the tag of {name} at once, as a JSON object")
        arguments = yield from self._object(name, may_be_python=True)
        yield from self._end_tag()
        self._end(name, arguments)

    def _end_tag(self) -> Wait[None]:
        for i, character in enumerate(_END_TAG):
            if (yield from self._source.peek()) != character:
                if i:
                    raise NotACall(f"a call's tag must end with {_END_TAG!r}")
                return
            yield from self._source.take()

    def python_list(self) -> Wait[None]:
        """``[f(a=1), g(b='x')]``.

        Raises:
            NotACall: it is another list, or as for `json_object`.
        """
        source = self._source
        yield from source.expect("[", None)
        while True:
            yield from source.space()
            name = yield from source.run(_NAME)
            if not name or (yield from source.peek()) != "(":
                raise NotACall("every item of a list of calls must be a call" if self.calls else None)
            yield from self._keywords(name)
            yield from source.space()
            character = yield from source.take()
            if character == ",":
                yield from source.space()
                if (yield from source.peek()) != "]":
                    continue
                character = yield from source.take()
            if character != "]":
                raise NotACall(f"`,` or `]` must stand before {character or 'the end'!r}")
            return

    def builtin(self) -> Wait[None]:
        """``brave_search.call(query="...")``; names before the tool's, with dots, do not matter.

        Raises:
            NotACall: it is another word, or as for `json_object`.
        """
        name = yield from self._source.run(_NAME)
        if not name.endswith(".call") or (yield from self._source.peek()) != "(":
            raise NotACall(None)
        yield from self._keywords(name.removesuffix(".call").rpartition(".")[2])

    def _keywords(self, name: str) -> Wait[None]:
        source = self._source
        yield from source.take()
        if name not in self._tools:
            # Brackets are common in any text; a keyword, or nothing, between them makes it a call.
            yield from source.space()
            word = yield from source.run(_NAME)
            yield from source.space()
            raise (
                self._unknown(name)
                if (yield from source.peek()) == ("=" if word else ")")
                else NotACall(None)
            )
        self.start(name)
        arguments: dict[str, Any] = {}
        while True:
            yield from source.space()
            if (yield from source.peek()) == ")":
                yield from source.take()
                break
            given = yield from self._keyword()
            twice = sorted(given.keys() & arguments.keys())
            if twice:
                raise NotACall(f"the argument {twice[0]!r} is there twice")
            if given and not self._tools.is_builtin(name):
                self._say_arguments((", " if arguments else "{") + _json(given)[1:-1])
            arguments.update(given)
            yield from source.space()
            following = yield from source.peek()
            if following == ",":
                yield from source.take()
            elif following != ")":
                raise NotACall(f"`,` or `)` must stand before {following or 'the end'!r}")
        if self._has_said:
            self._say_arguments("}")
        self._end(name, arguments)

    def _keyword(self) -> Wait[dict[str, Any]]:
        source = self._source
        if (yield from source.peek()) == "*":
            yield from source.take()
            yield from source.expect("*", "arguments must have names")
            given = yield from read_python(source)
            if not isinstance(given, dict):
                raise NotACall("`**` must stand before an object")
            return given
        word = yield from source.run(_NAME)
        yield from source.space()
        yield from source.expect("=", "arguments must have names")
        return {word: (yield from read_python(source))}

    def reset(self) -> None:
        """Forget what was read, so that other calls can be."""
        self.calls.clear()
        self.started.clear()
        self.is_refused = False

    def start(self, name: str) -> None:
        """Begin a call of a registered tool.

        Raises:
            NotACall: there are too many calls.
        """
        if self._next == MAX_CALLS:
            self.is_refused = True
            raise NotACall(f"an answer may hold {MAX_CALLS} calls")
        self.started.append(self._next)
        self._next += 1
        self._has_said = False
        self._say(CallStarted(self.started[-1], name))

    def _end(self, name: str, arguments: Any) -> None:
        if not isinstance(arguments, dict):
            raise NotACall(f"the arguments of {name} must be an object, got {arguments!r:.40}")
        arguments = self._tools.settle(name, arguments)
        problem = self._tools.problem(name, arguments)
        if problem is not None:
            raise NotACall(problem)
        if not self._has_said:
            self._say_arguments(_json(arguments))
        self.calls.append((self.started[-1], ToolCall(name, arguments)))

    def _say_arguments(self, text: str) -> None:
        self._has_said = True
        self._say(ArgumentsDelta(self.started[-1], text))

    def _unknown(self, name: str) -> NotACall:
        self.is_refused = True
        return NotACall(f"no tool is called {name!r:.80}")


def _json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
