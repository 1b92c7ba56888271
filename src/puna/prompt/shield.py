"""Keeps the text of messages apart from special tokens while a template joins everything to one string.

A template prints special tokens as text, so its output must be searched for them. To keep message
text out of that search, a *mark*, a character that occurs nowhere else, is put wherever message
text could be a part of a special token; after the search it is taken out again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from puna.errors import PromptFormatError

__all__ = ["Shield", "unused_characters"]

# Characters that mean nothing in Unicode: the noncharacters, then the three private-use areas.
_MEANINGLESS = (
    range(0xFDD0, 0xFDF0),
    range(0xE000, 0xF900),
    range(0xF0000, 0xFFFFE),
    range(0x100000, 0x10FFFE),
)


def unused_characters(texts: Iterable[str], count: int) -> list[str]:
    """Find characters without a meaning that occur in none of the texts.

    Args:
        texts: where they must not occur.
        count: how many to find.

    Returns:
        `count` characters.

    Raises:
        PromptFormatError: the texts use up all of more than 130,000 such characters.
    """
    used = set().union(*texts)
    free = (chr(code) for area in _MEANINGLESS for code in area if chr(code) not in used)
    found = list(islice(free, count))
    if len(found) < count:
        raise PromptFormatError("the messages hold every private-use character of Unicode; take some out")
    return found


class Shield:
    """Marks message text for one set of special tokens, and splits rendered text at them."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        """Prepare the searches.

        Args:
            special_tokens: their texts. One of a single character has no inside to put a mark
                in, so it is left out: the template's own becomes plain text as well.
        """
        self._tokens = sorted({text for text in special_tokens if len(text) > 1}, key=len, reverse=True)
        beginnings: dict[str, set[str]] = {}
        for text in self._tokens:
            beginnings.setdefault(text[0], set()).add(text[1])
        # A token's first character before its second, or with nothing after it but white space,
        # which a template may trim.
        self._begins = re.compile(
            "|".join(
                f"{re.escape(first)}(?=[{re.escape(''.join(sorted(seconds)))}]|\\s*\\Z)"
                for first, seconds in beginnings.items()
            )
            or r"(?!)"
        )
        self._tails = tuple({text[cut:] for text in self._tokens for cut in range(1, len(text))})
        self._split = re.compile("(" + ("|".join(map(re.escape, self._tokens)) or "(?!)") + ")")

    def protect(self, text: str, mark: str) -> str:
        """Mark a message's text.

        Args:
            text: any text without the mark in it.
            mark: a character that occurs nowhere else.

        Returns:
            The text with marks such that it cannot hold, begin or complete a special token, whatever
            stands before and after it, and whether or not white space is trimmed off its ends.
        """
        marked = self._begins.sub(lambda match: match[0] + mark, text)
        body = marked.lstrip()
        if body.startswith(self._tails) or (body and self._is_inside(text.strip())):
            return marked[: len(marked) - len(body)] + mark + body
        return marked

    def split(self, rendered: str) -> list[str]:
        """Split rendered text at special tokens: plain text at even places, special tokens at odd ones."""
        return self._split.split(rendered)

    def _is_inside(self, text: str) -> bool:
        return any(text in token[1:] for token in self._tokens)
