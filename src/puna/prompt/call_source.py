"""Text that is still arriving, for parsers that are written as if all of it were there.

A parser is a generator: where it needs more than has arrived, it yields, and is resumed once there is more.
So one description of a grammar reads whole texts and streams alike, and every character is looked at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import TypeVar

__all__ = ["TAG", "NotACall", "Source", "Wait"]

T = TypeVar("T")
Wait = Generator[None, None, T]
"""What a parser's functions return: call them with ``yield from``."""

TAG = "\udc00"
"""Stands for the token ``<|python_tag|>``: half a surrogate pair, which no decoded text has in it."""

_SPACE = re.compile(r"\s*")


class NotACall(Exception):
    """What looked like a call is none.

    Attributes:
        reason: what is wrong with it; None where it is plainly just text.
    """

    def __init__(self, reason: str | None) -> None:
        """Say what is wrong."""
        super().__init__(reason)
        self.reason = reason


class Source:
    """Characters in their order, those that have not arrived yet included.

    Attributes:
        tap: is given what is read, in order and as soon as it is read, while it is set.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._buffer = ""
        self._position = 0
        self._has_ended = False
        self._marked: list[str] | None = None
        self._mark = 0
        self.tap: Callable[[str], None] | None = None
        self._tapped = 0

    def feed(self, text: str) -> None:
        """Add text at the end; to be called between two resumptions of the parser."""
        self._drain()
        if self._marked is not None:
            self._marked.append(self._buffer[self._mark : self._position])
        self._buffer = self._buffer[self._position :] + text
        self._position = self._mark = self._tapped = 0

    def end(self) -> None:
        """Say that no more text comes."""
        self._has_ended = True

    def peek(self, count: int = 1) -> Wait[str]:
        """The next characters, not yet taken; fewer at the end."""
        while len(self._buffer) - self._position < count and not self._has_ended:
            self._drain()
            yield
        return self._buffer[self._position : self._position + count]

    def take(self) -> Wait[str]:
        """The next character; empty at the end.

        Raises:
            NotACall: it is `TAG`, over which no call reaches.
        """
        character = yield from self.peek()
        if character == TAG:
            raise NotACall("a call ends before the next <|python_tag|>")
        self._position += len(character)
        return character

    def pass_tag(self) -> None:
        """Take `TAG`, which is the next character."""
        self._position += 1

    def here(self, pattern: re.Pattern[str]) -> str:
        """Take the match of a pattern here, of what has arrived and maybe nothing, without waiting."""
        match = pattern.match(self._buffer, self._position)
        if match is None:
            return ""
        self._position = match.end()
        return match[0]

    def run(self, pattern: re.Pattern[str]) -> Wait[str]:
        """Take all characters of a kind.

        Args:
            pattern: matches any number of such characters, like ``[a-z]*``.
        """
        parts = []
        while True:
            parts.append(self.here(pattern))
            if self._position < len(self._buffer) or not (yield from self.peek()):
                return "".join(parts)

    def space(self) -> Wait[str]:
        """Take white space, maybe none."""
        return (yield from self.run(_SPACE))

    def expect(self, character: str, reason: str | None) -> Wait[None]:
        """Take one certain character, or make sure of the end where it is empty.

        Raises:
            NotACall: there is another one; it is not taken.
        """
        if (yield from self.peek()) != character:
            raise NotACall(reason)
        self._position += len(character)

    def mark(self) -> None:
        """Begin to remember what is taken."""
        self._marked, self._mark = [], self._position

    def marked(self) -> str:
        """What was taken since the mark; ends remembering."""
        text = "".join([*(self._marked or ()), self._buffer[self._mark : self._position]])
        self._marked = None
        return text

    def start_tap(self, tap: Callable[[str], None] | None) -> None:
        """Pass on what is read from here on; None for nothing."""
        self.tap, self._tapped = tap, self._position

    def stop_tap(self) -> None:
        """Pass on the rest, and no more."""
        self._drain()
        self.tap = None

    def _drain(self) -> None:
        if self.tap is not None and self._tapped < self._position:
            text = self._buffer[self._tapped : self._position]
            self._tapped = self._position
            self.tap(text)
