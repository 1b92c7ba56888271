"""A client's stop texts end the text of an answer, and never cut a call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.server.live import Live

from puna import Llama
from puna.engine.request import Event
from puna.prompt import as_tools
from puna.prompt.call_events import TextDelta
from puna.prompt.tool_schema import ToolSet
from puna.server.answers.parts import AnswerParts, Part, WholeCall, whole_calls

CITY: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CODE: Any = {"type": "function", "function": {"name": "code_interpreter"}}
FORMS = {
    "json": '{"name": "weather", "parameters": {"city": "Cusco"}}',
    "tagged_json": '<|python_tag|>{"name": "weather", "parameters": {"city": "Cusco"}}',
    "function_tag": '<function=weather>{"city": "Cusco"}</function>',
    "list": '[weather(city="Cusco")]',
    "call": 'weather.call(city="Cusco")',
    "program": '<|python_tag|>city = "Cusco"\nprint(city)',
}
IN_CALLS = ["city", "Cusco", '"', "weather", '"}', "usco"]


def parts_of(
    llama: Llama, said: str, stops: Sequence[str], *, size: int = 1, several: bool = True
) -> tuple[list[Part], AnswerParts]:
    """An answer's parts, from events of so many tokens."""
    tools = ToolSet(as_tools([WEATHER, CODE]))
    answer = AnswerParts(
        llama.tokenizer, tools, stop_texts=stops, allows_several_calls=several, must_call=False
    )
    ids = llama.tokenizer.encode_with_special(said)
    events = [Event(tokens=tuple(ids[i : i + size])) for i in range(0, len(ids), size)]
    return [part for event in [*events, Event(finish_reason="stop")] for part in answer.push(event)], answer


def text_of(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


def text_in_front(parts: Sequence[Part]) -> str:
    """The text in front of the first call."""
    return text_of(list(takewhile(lambda part: isinstance(part, TextDelta), parts)))


@pytest.mark.parametrize("form", FORMS)
def test_a_stop_text_in_a_call_ends_nothing(scripted: Llama, form: str) -> None:
    expected, _ = parts_of(scripted, FORMS[form], [])
    assert [call.name for call in whole_calls(expected)] == [
        "code_interpreter" if form == "program" else "weather"
    ]
    for stop in IN_CALLS:
        parts, answer = parts_of(scripted, FORMS[form], [stop])
        assert (whole_calls(parts), text_of(parts), answer.end) == (whole_calls(expected), "", "tool_calls")


@pytest.mark.parametrize("form", FORMS)
def test_a_stop_text_that_begins_in_front_of_a_call_is_none(scripted: Llama, form: str) -> None:
    call = FORMS[form].removeprefix("<|python_tag|>")
    parts, answer = parts_of(scripted, f"Let me look.\n{FORMS[form]}", [f"look.\n{call[:3]}", "\n\n"])
    # What was held back, since a stop text might have come of it, stays in front of the call.
    assert text_in_front(parts) == "Let me look.\n"
    assert (len(whole_calls(parts)), answer.end) == (1, "tool_calls")


def test_a_stop_text_does_not_reach_over_a_call(scripted: Llama) -> None:
    said = f"one E\n{FORMS['function_tag']}ND two"
    parts, answer = parts_of(scripted, said, ["E\nND"])
    assert (text_of(parts), len(whole_calls(parts)), answer.end) == ("one E\nND two", 1, "tool_calls")


def test_a_stop_text_in_what_is_no_call_is_one(scripted: Llama) -> None:
    said = 'I look.\n{"name": "launch", "parameters": {"city": "Cusco"}}'
    parts, answer = parts_of(scripted, said, ["Cusco", '.\n{"name'])
    assert (text_of(parts), answer.end) == ("I look", "stop")
    parts, answer = parts_of(scripted, said, ["Cusco"])
    assert (text_of(parts), answer.end) == ('I look.\n{"name": "launch", "parameters": {"city": "', "stop")


def test_nothing_comes_behind_a_stop_text(scripted: Llama) -> None:
    parts, answer = parts_of(scripted, f"before END\n{FORMS['json']}", ["END"])
    assert (parts, answer.end) == ([TextDelta("before ")], "stop")
    parts, answer = parts_of(scripted, f"{FORMS['json']}\nbehind END\n{FORMS['json']}", ["END"])
    assert (text_of(parts), len(whole_calls(parts)), answer.end) == ("behind ", 1, "tool_calls")


def test_one_call_has_its_text_in_front(scripted: Llama) -> None:
    parts, answer = parts_of(scripted, f"I look E\n{FORMS['json']}", ["E\nND"], several=False)
    assert (text_in_front(parts), answer.end) == ("I look E\n", "tool_calls")


SAID = ["Let me ", "look.\n", "EN", "D", *(f"\n{form}\n" for form in FORMS.values())]


@given(
    said=st.lists(st.sampled_from(SAID), max_size=5),
    stops=st.lists(st.sampled_from([*IN_CALLS, "END", "look", "\n", "k.\n{", "D\n"]), max_size=3),
    size=st.integers(1, 9),
)
def test_what_a_stop_text_does_is_the_same_however_tokens_arrive(
    scripted: Llama, said: list[str], stops: list[str], size: int
) -> None:
    parts, answer = parts_of(scripted, "".join(said), stops)
    again, other = parts_of(scripted, "".join(said), stops, size=size)
    assert (text_of(again), whole_calls(again), other.end) == (text_of(parts), whole_calls(parts), answer.end)
    free, _ = parts_of(scripted, "".join(said), [])
    assert text_of(free).startswith(text_of(parts))
    calls = whole_calls(parts)
    assert whole_calls(free)[: len(calls)] == calls
    assert all(isinstance(json.loads(call.arguments), dict) for call in calls)


CALL = [WholeCall(0, "weather", '{"city": "Cusco"}')]


@pytest.mark.parametrize("stop", ["city", '"Cusco"}'])
@pytest.mark.parametrize("stream", [False, True])
def test_chat(live: Live, stop: str, stream: bool) -> None:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "talk and call"}],
        "tools": [WEATHER],
        "stop": stop,
    }
    answer = live.http.post("/v1/chat/completions", json={**body, "stream": stream})
    if stream:
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")]
        choices = [choice for line in lines if line[:1] == "{" for choice in json.loads(line)["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]
        arguments = "".join(call["function"]["arguments"] for call in calls)
    else:
        choices = answer.json()["choices"]
        text = choices[0]["message"]["content"]
        (call,) = choices[0]["message"]["tool_calls"]
        arguments = call["function"]["arguments"]
    assert (text, json.loads(arguments)) == ("Let me look.\n", {"city": "Cusco"})
    assert choices[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_messages(live: Live, stream: bool) -> None:
    body = {
        "model": "scripted",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "talk and call"}],
        "tools": [{"name": "weather", "input_schema": CITY}],
        "stop_sequences": ["Cusco", "city"],
    }
    answer = live.http.post("/v1/messages", json={**body, "stream": stream})
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        text = "".join(delta.get("text", "") for delta in deltas)
        given = json.loads("".join(delta.get("partial_json", "") for delta in deltas))
        end = events[-2]["delta"]
    else:
        end = answer.json()
        (said, call) = end["content"]
        text, given = said["text"], call["input"]
    assert (text, given) == ("Let me look.\n", {"city": "Cusco"})
    assert (end["stop_reason"], end["stop_sequence"]) == ("tool_use", None)


def test_the_engine_is_ended_where_the_text_is(live: Live, scripted: Llama) -> None:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "stop and fall silent"}],
        "tools": [WEATHER],
        "stop": "END",
    }
    engine: Any = scripted.engine
    before = len(engine.cancelled)
    (choice,) = live.http.post("/v1/chat/completions", json=body).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("before ", "stop")
    assert len(engine.cancelled) > before
