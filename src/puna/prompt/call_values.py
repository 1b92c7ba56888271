"""Values in calls: strict JSON, and the literals of Python that models write in its place.

No value is ever evaluated: names, calls, operators and f-strings are errors.
"""

from __future__ import annotations

import math
import re
from typing import Any

from puna.prompt.call_source import TAG, NotACall, Source, Wait
from puna.prompt.call_text import MAX_DEPTH

__all__ = ["parse_json", "read_json", "read_members", "read_python", "read_text"]

_WORD = re.compile(r"\w*")
_NUMBER = re.compile(r"[-+.\w]*")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<power>[eE][-+]?[0-9]+)?", re.ASCII)
_PYTHON_INTEGER = re.compile(
    r"[-+]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|[1-9](?:_?[0-9])*|0(?:_?0)*)",
    re.ASCII,
)
_PYTHON_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9][0-9_]*)?", re.ASCII
)
# Python itself refuses to read longer whole numbers.
_MAX_DIGITS = 4_000

_JSON_CHUNK = re.compile(rf'[^"\\\x00-\x1f{TAG}]*')
_CHUNKS = {'"': re.compile(rf'[^"\\{TAG}]*'), "'": re.compile(rf"[^'\\{TAG}]*")}
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}
_JSON_ESCAPES = {**_SIMPLE, "/": "/"}
_PYTHON_ESCAPES = {**_SIMPLE, "'": "'", "a": "\a", "v": "\v", "\n": ""}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_CONSTANTS = {"true": True, "false": False, "null": None}
_PYTHON_CONSTANTS = {**_CONSTANTS, "True": True, "False": False, "None": None}
_PREFIXES = ("r", "b", "u", "rb", "br")


def parse_json(text: str) -> Any:
    """The value of a whole JSON text.

    Raises:
        NotACall: it is not one.
    """
    source = Source()
    source.feed(text)
    source.end()
    try:
        next(_alone(source))
    except StopIteration as done:
        return done.value
    raise AssertionError("nothing is waited for once a source has ended")


def _alone(source: Source) -> Wait[Any]:
    value = yield from read_json(source)
    yield from source.space()
    yield from source.expect("", "nothing may follow the value")
    return value


def read_json(source: Source, depth: int = 0) -> Wait[Any]:
    """Read one JSON value; `NotACall` where there is none, or one nested deeper than `MAX_DEPTH`."""
    return (yield from _read(source, depth, is_python=False))


def read_python(source: Source, depth: int = 0) -> Wait[Any]:
    """Read one Python literal that JSON has a word for; ``true``, ``false`` and ``null`` are taken too."""
    return (yield from _read(source, depth, is_python=True))


def read_text(source: Source, *, is_python: bool) -> Wait[str]:
    """Read one text in quotes."""
    quote = yield from source.peek()
    if quote != '"' and not (is_python and quote == "'"):
        raise NotACall(f"a text in quotes is needed, got {quote or 'the end'!r}")
    if is_python:
        return (yield from _python_texts(source))
    return (yield from _json_text(source))


def _read(source: Source, depth: int, *, is_python: bool) -> Wait[Any]:
    if depth > MAX_DEPTH:
        raise NotACall(f"values are nested more than {MAX_DEPTH} deep")
    yield from source.space()
    first = yield from source.peek()
    if first == "{":
        yield from source.take()
        return (yield from read_members(source, depth, is_python=is_python))
    if first == "[":
        return (yield from _items(source, "]", depth, is_python=is_python))
    if first == "(" and is_python:
        return (yield from _items(source, ")", depth, is_python=True))
    if first == '"' or (first == "'" and is_python):
        return (yield from read_text(source, is_python=is_python))
    if first and first in "-+.0123456789":
        return _number((yield from source.run(_NUMBER)), is_python=is_python)
    word = yield from source.run(_WORD)
    constants = _PYTHON_CONSTANTS if is_python else _CONSTANTS
    if word in constants:
        return constants[word]
    if is_python and word.lower() in _PREFIXES and (yield from source.peek()) in ('"', "'"):
        return (yield from _python_text(source, word.lower()))
    raise NotACall(f"{word or first or 'the end'!r} is no value")


def read_members(source: Source, depth: int = 0, *, is_python: bool) -> Wait[dict[str, Any]]:
    """Read the rest of an object whose opening bracket is taken already."""
    values: dict[str, Any] = {}
    yield from source.space()
    if (yield from source.peek()) == "}":
        yield from source.take()
        return values
    while True:
        yield from source.space()
        key = yield from read_text(source, is_python=is_python)
        yield from source.space()
        yield from source.expect(":", "a key must have a value; sets are not JSON")
        values[key] = yield from _read(source, depth + 1, is_python=is_python)
        if not (yield from _goes_on(source, "}", is_python=is_python)):
            return values


def _items(source: Source, close: str, depth: int, *, is_python: bool) -> Wait[Any]:
    yield from source.take()
    values: list[Any] = []
    yield from source.space()
    if (yield from source.peek()) == close:
        yield from source.take()
        return values
    while True:
        values.append((yield from _read(source, depth + 1, is_python=is_python)))
        yield from source.space()
        # A lone value in round brackets is itself, not a list.
        if close == ")" and len(values) == 1 and (yield from source.peek()) == ")":
            yield from source.take()
            return values[0]
        if not (yield from _goes_on(source, close, is_python=is_python)):
            return values


def _goes_on(source: Source, close: str, *, is_python: bool) -> Wait[bool]:
    """Take the comma or the closing bracket behind a value: whether another value comes."""
    yield from source.space()
    character = yield from source.take()
    if character == ",":
        yield from source.space()
        if not (is_python and (yield from source.peek()) == close):
            return True
        character = yield from source.take()
    if character != close:
        raise NotACall(f"`,` or `{close}` must stand before {character or 'the end'!r}")
    return False


def _number(text: str, *, is_python: bool) -> int | float:
    if len(text) > _MAX_DIGITS:
        raise NotACall(f"a number may have {_MAX_DIGITS} digits, got {len(text)}")
    if is_python:
        if _PYTHON_INTEGER.fullmatch(text):
            return int(text, 0)
        # Python has no whole number with leading zeros.
        is_float = _PYTHON_FLOAT.fullmatch(text) if set(".eE") & set(text) else None
    else:
        is_float = _JSON_NUMBER.fullmatch(text)
        if is_float and is_float["fraction"] is None and is_float["power"] is None:
            return int(text)
    try:
        value = float(text) if is_float else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise NotACall(f"{text:.40} is no number that JSON has")
    return value


def _json_text(source: Source) -> Wait[str]:
    yield from source.take()
    parts: list[str] = []
    while True:
        parts.append((yield from source.run(_JSON_CHUNK)))
        character = yield from source.take()
        if character == '"':
            return _joined(parts)
        if character != "\\":
            raise NotACall(f"a text must not hold {character or 'the end'!r} as it is")
        escape = yield from source.take()
        if escape == "u":
            parts.append((yield from _code_point(source, 4)))
        elif escape in _JSON_ESCAPES and escape:
            parts.append(_JSON_ESCAPES[escape])
        else:
            raise NotACall(f"JSON has no escape `\\{escape}`")


def _python_texts(source: Source) -> Wait[str]:
    """One text or several next to each other, which Python joins."""
    parts = [(yield from _python_text(source, ""))]
    while True:
        yield from source.space()
        if (yield from source.peek()) not in ('"', "'"):
            return "".join(parts)
        parts.append((yield from _python_text(source, "")))


def _python_text(source: Source, prefix: str) -> Wait[str]:
    quote = yield from source.take()
    n_quotes = 1
    if (yield from source.peek()) == quote:
        yield from source.take()
        if (yield from source.peek()) != quote:
            return ""
        yield from source.take()
        n_quotes = 3
    parts: list[str] = []
    while True:
        parts.append((yield from source.run(_CHUNKS[quote])))
        character = yield from source.take()
        if character == "\\":
            escape = yield from source.take()
            parts.append("\\" + escape if "r" in prefix else (yield from _python_escape(source, escape)))
        elif character != quote:
            raise NotACall("a text has no closing quote")
        elif (yield from _closes(source, quote, n_quotes, parts)):
            break
    text = _joined(parts)
    if "b" in prefix and not text.isascii():
        raise NotACall("bytes must be ASCII to be a text")
    return text


def _closes(source: Source, quote: str, n_quotes: int, parts: list[str]) -> Wait[bool]:
    """Take as many quotes as close a text, one of which is taken already; fewer belong to the text."""
    for found in range(1, n_quotes):
        if (yield from source.peek()) != quote:
            parts.append(quote * found)
            return False
        yield from source.take()
    return True


def _python_escape(source: Source, escape: str) -> Wait[str]:
    if escape in _HEX_DIGITS:
        return (yield from _code_point(source, _HEX_DIGITS[escape]))
    if escape in _PYTHON_ESCAPES:
        return _PYTHON_ESCAPES[escape]
    if escape == "N":
        raise NotACall("characters by name are not read")
    if escape and escape in "01234567":
        digits = escape
        while len(digits) < 3 and (following := (yield from source.peek())) and following in "01234567":
            digits += yield from source.take()
        return chr(int(digits, 8))
    return "\\" + escape


def _code_point(source: Source, n_digits: int) -> Wait[str]:
    digits = ""
    while len(digits) < n_digits:
        digit = yield from source.take()
        if not digit or digit not in "0123456789abcdefABCDEF":
            raise NotACall(f"an escaped character needs {n_digits} digits")
        digits += digit
    code = int(digits, 16)
    if code > 0x10FFFF:
        raise NotACall(f"no character has the number {digits}")
    return chr(code)


def _joined(parts: list[str]) -> str:
    text = "".join(parts)
    if any("\ud800" <= part <= "\udfff" for part in parts if len(part) == 1):
        # Two escapes may stand for one character; a lone half stays what it is.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text
