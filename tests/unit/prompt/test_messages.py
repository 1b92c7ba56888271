from __future__ import annotations

from typing import Any

import pytest

from puna.errors import PromptFormatError
from puna.prompt import Assistant, Image, System, Tool, ToolCall, User, as_messages


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


def test_parts_of_a_content() -> None:
    content = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:x"}},
        {"type": "image", "path": "p.png"},
        {"type": "image"},
        "b",
        Image(b"png"),
    ]
    (message,) = as_messages([{"role": "user", "content": content, "context": ["c"]}])
    parts = ("a", Image("data:x"), Image("p.png"), Image(), "b", Image(b"png"))
    assert message == User(parts, ("c",))
    assert message.text == "ab"


def test_calls_and_results() -> None:
    openai = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, null]}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [openai], "refusal": None, "ends_turn": False},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"name": "g", "arguments": {"b": 1}}, ToolCall("h")],
        },
        {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": ""}}]},
        {"role": "tool", "content": "r", "tool_call_id": "c1"},
        {"role": "tool", "content": {"é": 1}},
    ]
    assert as_messages(messages) == [
        Assistant("", ends_turn=False, tool_calls=(ToolCall("f", {"a": [1, None]}, "c1"),)),
        Assistant("x", tool_calls=(ToolCall("g", {"b": 1}), ToolCall("h"))),
        Assistant("", tool_calls=(ToolCall("g"),)),
        Tool("r", call_id="c1"),
        Tool('{"é": 1}', value={"é": 1}),
    ]


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
        (
            [User("x"), {"role": "user"}],
            r"messages\[1\]: `content` must be a string or a list of parts, got NoneType",
        ),
        ([{"role": "user", "content": None}], r"messages\[0\]: `content` must be .*, got NoneType"),
        ([{"role": "assistant", "tool_calls": []}], r"messages\[0\]: `content` must be .*, got NoneType"),
        ([{"role": "user", "content": 3}], r"messages\[0\]: `content` must be .*, got int"),
        (
            [{"role": "user", "content": ["x", {"type": "audio"}]}],
            r"messages\[0\]: `content`\[1\]: a part must be .* got \{'type': 'audio'\}",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": None}]}],
            r"messages\[0\]: `content`\[0\]: `text` must be a string, got NoneType",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 7}}]}],
            r"`content`\[0\]: the picture must be a string or bytes, got int",
        ),
        ([{"role": "user", "content": "x", "context": 5}], r"messages\[0\]: `context` must be .*, got int"),
        (
            [{"role": "assistant", "content": "x", "ends_turn": 1}],
            "`ends_turn` must be true or false, got int",
        ),
        ([{"role": "tool", "content": "x", "tool_call_id": 1}], "`tool_call_id` must be a string, got int"),
        (
            [{"role": "assistant", "tool_calls": {"name": "f"}}],
            r"messages\[0\].tool_calls must be a list of calls, got dict",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
            r"messages\[0\].tool_calls\[0\]: a call must be .* got \{'function'",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}],
            r"tool_calls\[0\]: `arguments` is not JSON: Expecting property name",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}],
            r"tool_calls\[0\]: `arguments` must be a JSON object, got list",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"name": "f", "id": 5}]}],
            r"tool_calls\[0\]: `id` must be a string, got int",
        ),
        ([{"role": "tool", "content": "x", "name": 3}], r"messages\[0\]: `name` must be a string, got int"),
        (
            [{"role": "system", "content": "", "tool_calls": [{"name": "f"}]}],
            r"of the role system has only the fields \['content', 'role'\], got also \['tool_calls'\]",
        ),
        ([{"role": "user", "content": "x", "name": "Ann"}], r"got also \['name'\]"),
    ],
)
def test_bad_messages_are_refused(messages: Any, message: str) -> None:
    with pytest.raises(PromptFormatError, match=message):
        as_messages(messages)
