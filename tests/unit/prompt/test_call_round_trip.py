"""A call that a format spells is read back as the same call, whatever its arguments are."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.errors import PromptFormatError
from puna.prompt import BUILTIN_TOOLS, Assistant, ToolCall, ToolDefinition, parse_tool_calls, parse_tool_ids
from puna.prompt.call_text import MAX_DEPTH, CallStyle
from puna.prompt.family import ToolForm
from puna.prompt.llama3 import Llama3Format
from puna.tokens import Tokenizer

CUSTOM = ("f", "get_weather", "a-b.c")
TOOLS = [*BUILTIN_TOOLS.values(), *(ToolDefinition(name, "", {"type": "object"}) for name in CUSTOM)]
FORMS: tuple[ToolForm, ...] = ("json", "function_tag", "python_list")

ENDINGS = ["<|python_tag|>", "<|eot_id|>", "</function>", '"}]', "'\\\"", "```\n", "\\ud800", "\n", "\ud83e"]
# Through JSON, for which two halves of a surrogate pair are one character.
TEXTS = st.one_of(st.text(st.characters(exclude_categories=[]), max_size=12), st.sampled_from(ENDINGS)).map(
    lambda text: json.loads(json.dumps(text))
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(TEXTS | st.sampled_from(["a", "city", "class", "é"]), VALUES, max_size=4)
PROGRAMS = TEXTS | st.sampled_from(
    [
        "print(1)",
        "",
        " x ",
        "[f(a=1)]",
        '{"name": "f"}',
        "brave_search.call(query='x')",
        "<function=f>{}",
        "x.call (",
    ]
)
CALLS = st.one_of(
    st.builds(ToolCall, st.sampled_from(CUSTOM), ARGUMENTS),
    st.builds(
        lambda name, q: ToolCall(name, {"query": q}),
        st.sampled_from(["brave_search", "wolfram_alpha"]),
        TEXTS,
    ),
    st.builds(lambda code: ToolCall("code_interpreter", {"code": code}), PROGRAMS),
)


def answer_ids(tokenizer: Tokenizer, message: Assistant, style: CallStyle) -> list[int]:
    form = Llama3Format(tokenizer, style=style)
    opening, closing = len(form.encode_chat([])), len(form.encode_chat([])) - 1
    return form.encode_chat([message])[opening:-closing]


def same(calls: Any, expected: Any) -> bool:
    # repr tells 1 from 1.0 and True, and -0.0 from 0.0.
    return [(c.name, repr(c.arguments)) for c in calls] == [(c.name, repr(c.arguments)) for c in expected]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tags_builtin", [False, True])
def test_read_back_from_ids(llama3: Tokenizer, form: ToolForm, tags_builtin: bool) -> None:
    style = CallStyle(form=form, tags_builtin=tags_builtin)

    @settings(max_examples=200, deadline=None)
    @given(
        calls=st.lists(CALLS, min_size=1, max_size=4),
        words=st.sampled_from(["", "I look. ", "Yes:\n", "(a)"]),
    )
    @example(calls=[ToolCall("f", {"a": "\ud800", "b": "\udd99\ud83e"})], words="")
    @example(calls=[ToolCall("code_interpreter", {"code": "\udc00"})], words="x")
    @example(calls=[ToolCall("code_interpreter", {"code": "x=1"}), ToolCall("f"), ToolCall("f")], words="x")
    def check(calls: list[ToolCall], words: str) -> None:
        answer = parse_tool_ids(
            answer_ids(llama3, Assistant(words, tool_calls=tuple(calls)), style), TOOLS, llama3
        )
        assert same(answer.calls, calls)
        assert answer.problems == ()
        assert answer.text.rstrip("\n") == words.rstrip("\n")

    check()


@pytest.mark.parametrize("form", FORMS)
def test_read_back_from_text(llama3: Tokenizer, form: ToolForm) -> None:
    # Without the tokens a word may pass for one in a program, so programs are left out here.
    @settings(max_examples=200, deadline=None)
    @given(call=CALLS.filter(lambda call: call.name != "code_interpreter"), ends_turn=st.booleans())
    def check(call: ToolCall, ends_turn: bool) -> None:
        ids = answer_ids(llama3, Assistant("", ends_turn, (call,)), CallStyle(form=form))
        answer = parse_tool_calls(llama3.decode(ids, show_special=True), TOOLS)
        assert same(answer.calls, [call])
        assert (answer.text, answer.ends_turn) == ("", ends_turn)

    check()


def test_builtin_tools_with_other_arguments_are_spelled_as_custom_ones(llama3: Tokenizer) -> None:
    for call in (ToolCall("brave_search", {"query": 1}), ToolCall("code_interpreter", {"code": 1, "x": 2})):
        ids = answer_ids(llama3, Assistant("", tool_calls=(call,)), CallStyle())
        assert llama3.decode(ids).startswith(f'{{"type": "function", "name": "{call.name}", "parameters": {{')


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("form", FORMS)
def test_what_json_cannot_hold_is_refused(llama3: Tokenizer, form: ToolForm) -> None:
    def spell(value: Any) -> list[int]:
        return answer_ids(
            llama3, Assistant("", tool_calls=(ToolCall("f", {"a": value}),)), CallStyle(form=form)
        )

    deepest = nested(MAX_DEPTH - 1)
    (call,) = parse_tool_ids(spell(deepest), TOOLS, llama3).calls
    assert call.arguments == {"a": deepest}
    with pytest.raises(PromptFormatError, match="the arguments of the call of 'f' may be nested 64 deep"):
        spell(nested(MAX_DEPTH))
    for value in (math.nan, math.inf, {1, 2}, b"x", 10**5000):
        with pytest.raises(PromptFormatError, match=r"not JSON|JSON has no word for"):
            spell(value)
