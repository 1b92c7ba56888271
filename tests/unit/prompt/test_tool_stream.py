from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.prompt.test_tool_calls import TOOLS

from puna.prompt import ToolCall, ToolCallStream, parse_tool_calls
from puna.prompt.call_events import (
    ArgumentsDelta,
    CallEnded,
    CallEvent,
    CallFailed,
    CallProblem,
    CallStarted,
    TextDelta,
)
from puna.prompt.tool_calls import _gather
from puna.tokens import Tokenizer


def events(pieces: list[str]) -> list[list[CallEvent]]:
    stream = ToolCallStream(TOOLS)
    return [*(stream.push(piece) for piece in pieces), stream.finish()]


def test_text_is_passed_on_at_once() -> None:
    # A word at the start of a line may be the name of a tool; behind it there is nothing to wait for.
    assert events(["He", "llo", " wor", "ld: 1 < 2", " {x}", "\n", "`", "a` ", "<b", ">"]) == [
        [], [], [TextDelta("Hello wor")], [TextDelta("ld: 1 < 2")], [TextDelta(" {x}")], [TextDelta("\n")],
        [], [TextDelta("`a`")], [TextDelta(" <b")], [TextDelta(">")], [],
    ]  # fmt: skip


def test_arguments_come_as_they_are_said() -> None:
    found = events(["Yes.\n", '{"name": "f", "para', 'meters": {"a": "x', "y\\", 'n", "b": [1', ", 2]}", "}"])
    assert found == [
        [TextDelta("Yes.\n")],
        [CallStarted(0, "f")],
        [ArgumentsDelta(0, '{"a": "x')],
        [ArgumentsDelta(0, "y\\")],
        [ArgumentsDelta(0, 'n", "b": [1')],
        [ArgumentsDelta(0, ", 2]}")],
        [],
        [CallEnded(0, ToolCall("f", {"a": "xy\n", "b": [1, 2]}))],
    ]


def test_arguments_of_the_other_forms() -> None:
    assert events(["<function=f>{'a'", ": None}", "</function>"]) == [
        [CallStarted(0, "f"), ArgumentsDelta(0, "{")],
        [ArgumentsDelta(0, '"a": null}')],
        [CallEnded(0, ToolCall("f", {"a": None}))],
        [],
    ]
    assert events(["[f(a=1", ", b='x", "'), g(", ")]"]) == [
        [CallStarted(0, "f")],
        [ArgumentsDelta(0, '{"a": 1')],
        [ArgumentsDelta(0, ', "b": "x"}'), CallStarted(1, "g")],
        [ArgumentsDelta(1, "{}")],
        [CallEnded(0, ToolCall("f", {"a": 1, "b": "x"})), CallEnded(1, ToolCall("g", {}))],
    ]
    assert events(['<|python_tag|>print("é', '")\n']) == [
        [CallStarted(0, "code_interpreter"), ArgumentsDelta(0, '{"code": "print(\\"é')],
        [ArgumentsDelta(0, '\\")\\n')],
        [ArgumentsDelta(0, '"}'), CallEnded(0, ToolCall("code_interpreter", {"code": 'print("é")\n'}))],
    ]


def test_a_call_that_is_none_is_taken_back() -> None:
    first, last, end = events(['{"name": "f", "parameters": {}}', " no"])
    assert first == [CallStarted(0, "f"), ArgumentsDelta(0, "{}")]
    assert last == []
    reason = "text stands behind a call, which must be the last thing on its line"
    text = '{"name": "f", "parameters": {}} no'
    assert end == [CallFailed((0,), CallProblem(reason, text)), TextDelta(text)]


def test_ids_stream(llama3: Tokenizer) -> None:
    stream = ToolCallStream(TOOLS, llama3)
    ids = [*llama3.encode("🦙 "), 128010, *llama3.encode('brave_search.call(query="🦙")'), 128008]
    found = [event for token in ids for event in stream.push_ids([token])] + stream.finish()
    assert [e for e in found if isinstance(e, TextDelta)] == [TextDelta("🦙"), TextDelta(" ")]
    assert found[-1] == CallEnded(0, ToolCall("brave_search", {"query": "🦙"}))
    assert stream.ends_turn is False


def test_ids_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="push_ids needs a stream that was made with a tokenizer"):
        ToolCallStream(TOOLS).push_ids([1])


PIECES = [
    '{"name": "f", "parameters": {"a": "x"}}', '{"name": "f", ', '"parameters": {', "}", "{", '"', "'",
    "[f(a=1)]", "[f(", "[", "]", "(", ")", "<function=f>", "{}", "</function>", "<|python_tag|>",
    "<|eot_id|>", "<|eom_id|>", "<", "|",
    "brave_search.call(query=", '"x")', "\n", " ", "  ", "```", "a", "print(1)", ",", ";", "é🦙", "\\", "=",
    "<|start_header_id|>assistant<|end_header_id|>\n\n", "code_interpreter.call(code='", "\ud83e",
]  # fmt: skip
ANSWERS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=ANSWERS, data=st.data())
def test_pieces_change_nothing(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = parse_tool_calls(text, TOOLS)
    stream = ToolCallStream(TOOLS)
    found = [event for piece in pieces for event in stream.push(piece)] + stream.finish()
    assert _gather(stream, found) == whole
    single = ToolCallStream(TOOLS)
    found = [event for character in text for event in single.push(character)] + single.finish()
    assert _gather(single, found) == whole
    check_events(found)


def check_events(found: list[CallEvent]) -> None:
    """Each call begins once, ends once, and its deltas are its arguments."""
    arguments: dict[int, str] = {}
    for event in found:
        if isinstance(event, CallStarted):
            assert event.index == max(arguments, default=-1) + 1
            arguments[event.index] = ""
        elif isinstance(event, ArgumentsDelta):
            arguments[event.index] += event.json
        elif isinstance(event, CallEnded):
            assert json.loads(arguments[event.index]) == event.call.arguments
            arguments[event.index] = "ended"
        elif isinstance(event, CallFailed):
            assert all(arguments[index] != "ended" for index in event.indexes)


PLAIN_PIECES = [p for p in PIECES if p not in (" ", "  ", "\ud83e") and not p.startswith("<|")]


@settings(max_examples=500, deadline=None)
@given(text=st.lists(st.sampled_from(PLAIN_PIECES), max_size=12).map("".join))
def test_no_text_is_lost(text: str) -> None:
    answer = parse_tool_calls(text, TOOLS)
    if answer.calls:
        # What is left is the text without some of its parts.
        rest = iter(text)
        assert all(character in rest for character in answer.text)
    else:
        assert answer.text == text.strip(" ")


HOSTILE = [
    "{", "[", '{"', '{"a":', '{"name":', '{"name": "f", "parameters": {"a":', '{"name": "f", "parameters": [',
    "[f(a=", "[f(a=[", "[f(", "<function=f>{", "<function=", "<", "(", "\\", '"', "'", "`", "```\n", "\n",
    "a\n", "a.call(\n", "brave_search.call(query='", "<|python_tag|>", "<|eot_id|>", "<|", "[f(a=1)]\n",
    " ", "a ", "1",
    '{"name": "f", "parameters": {"a": "' + "\\u0041" * 20 + '"}}\n', "[f(a='''", "[f(a=1_", ".", "-",
]  # fmt: skip


def check_ends(text: str) -> None:
    answer = parse_tool_calls(text, TOOLS)
    assert len(answer.text) <= len(text)
    assert all(len(problem.text) <= 1_000 for problem in answer.problems)


@pytest.mark.parametrize("unit", HOSTILE, ids=repr)
def test_a_long_answer_ends_whatever_it_says(unit: str) -> None:
    check_ends(unit * (100_000 // len(unit)))


@pytest.mark.parametrize(
    "unit", ["{", "a ", "<|python_tag|>", '{"name": "f", "parameters": {"a":', "[f(a='\\x41"]
)
def test_a_megabyte_ends(unit: str) -> None:
    check_ends(unit * (1_000_000 // len(unit)))
    check_ends(unit + "x" * 1_000_000)


@pytest.mark.parametrize("unit", ["{", " ", "<|eot_id|>", "[f(a='", "x", "<|python_tag|>"])
@pytest.mark.parametrize("start", ["", '{"name": "f", "parameters": {"a": "', "<|python_tag|>", "<|eot_id|>"])
def test_a_long_answer_in_small_pieces_ends(start: str, unit: str) -> None:
    stream = ToolCallStream(TOOLS)
    found = stream.push(start)
    for _ in range(20_000):
        found += stream.push(unit)
    assert _gather(stream, found + stream.finish()) == parse_tool_calls(start + unit * 20_000, TOOLS)
