from __future__ import annotations

from typing import Any

import pytest

from puna.errors import PromptFormatError
from puna.prompt import Assistant, System, Tool, User, as_messages


def test_both_spellings() -> None:
    messages = [
        {"role": "system", "content": "s"},
        User("u"),
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "t", "name": "clock"},
        {"role": "ipython", "content": "i", "name": None},
        Assistant("a", ends_turn=False),
    ]
    assert as_messages(messages) == [
        System("s"),
        User("u"),
        Assistant(""),
        Tool("t", "clock"),
        Tool("i"),
        Assistant("a", ends_turn=False),
    ]
    assert as_messages([]) == []


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "messages: must be a list of messages, got str"),
        ({"role": "user", "content": "x"}, "messages: must be a list of messages, got dict"),
        (None, "messages: must be a list of messages, got NoneType"),
        ([User("x"), "hello"], r"messages\[1\]: must be a message or a mapping .* got str"),
        (
            [{"role": "usr", "content": "x"}],
            r"messages\[0\]: unknown role 'usr'; did you mean 'user'\? known: ",
        ),
        (
            [{"content": "x"}],
            r"messages\[0\]: unknown role None; known: assistant, ipython, system, tool, user",
        ),
        ([{"role": ["user"], "content": "x"}], r"messages\[0\]: unknown role \['user'\]"),
        ([User("x"), {"role": "user"}], r"messages\[1\]: `content` is missing; it must be a string"),
        ([{"role": "user", "content": None}], r"messages\[0\]: `content` must be a string, got NoneType"),
        ([{"role": "user", "content": ["x"]}], r"messages\[0\]: `content` must be a string, got list"),
        ([{"role": "tool", "content": "x", "name": 3}], r"messages\[0\]: `name` must be a string, got int"),
        (
            [{"role": "assistant", "content": "", "tool_calls": []}],
            r"a assistant message has only the fields \['content', 'role'\], got also \['tool_calls'\]",
        ),
        ([{"role": "user", "content": "x", "name": "Ann"}], r"got also \['name'\]"),
    ],
)
def test_bad_messages_are_refused(messages: Any, message: str) -> None:
    with pytest.raises(PromptFormatError, match=message):
        as_messages(messages)
