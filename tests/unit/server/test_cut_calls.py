"""Calls that had to come and that a limit cut are told as far as they came."""

from __future__ import annotations

import pytest
from tests.unit.server.test_stop_texts import WEATHER, text_of

from puna import Llama
from puna.engine.request import Event, FinishReason
from puna.prompt import as_tools
from puna.prompt.tool_schema import ToolSet
from puna.server.answers.parts import AnswerParts, whole_calls

CODE = {"type": "function", "function": {"name": "code_interpreter"}}
SEARCH = {"type": "function", "function": {"name": "brave_search"}}
WHOLE = '{"name": "weather", "parameters": {"city": "Cusco"}}'


def answer_of(
    llama: Llama, said: str, *, must_call: bool = True, ends: FinishReason = "length"
) -> tuple[list[tuple[str, str]], str, str | None]:
    """Calls with their arguments, text, and why it ended."""
    tools = ToolSet(as_tools([WEATHER, SEARCH, CODE]))
    answer = AnswerParts(
        llama.tokenizer, tools, stop_texts=[], allows_several_calls=True, must_call=must_call
    )
    ids = llama.tokenizer.encode_with_special(said)
    events = [*(Event(tokens=(token,)) for token in ids), Event(finish_reason=ends)]
    parts = [part for event in events for part in answer.push(event)]
    return [(call.name, call.arguments) for call in whole_calls(parts)], text_of(parts), answer.end


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ('{"name": "weather"', [""]),
        ('{"name": "weather", "parameters": {"city": "Cu', ['{"city": "Cu']),
        ('{"name": "weather", "parameters": {"city": "Cusco"}', ['{"city": "Cusco"}']),
        ("<function=weather>", [""]),
        ('<function=weather>{"city": "C', ['{"city": "C']),
        ('[weather(city="Cusco", unit="', ['{"city": "Cusco"']),
        ('<|python_tag|>weather.call(city="', [""]),
        (f'{WHOLE}; {{"name": "weather", "parameters": {{"c', ['{"city": "Cusco"}', '{"c']),
        (f'{WHOLE}; {{"na', ['{"city": "Cusco"}']),
        ('[weather(city="Cusco"), weather(city="C', ['{"city": "Cusco"}', ""]),
    ],
)
def test_a_cut_call_is_told_where_it_had_to_come(scripted: Llama, said: str, arguments: list[str]) -> None:
    told = [("weather", each) for each in arguments]
    for ends in ("length", "cancelled"):
        assert answer_of(scripted, said, ends=ends) == (told, "", "length")  # type: ignore[arg-type]
    calls, text, end = answer_of(scripted, said, must_call=False)
    assert (calls, text, end) == ([], said.replace("<|python_tag|>", ""), "length")


@pytest.mark.parametrize("said", ['{"name": "weath', "<function=weath", "[weather"])
def test_a_call_without_a_name_is_text(scripted: Llama, said: str) -> None:
    assert answer_of(scripted, said) == ([], said, "length")


@pytest.mark.parametrize("said", ["", "code_inter", "code_interpreter.call", "import os\nos.remo", "1 + "])
@pytest.mark.parametrize("must_call", [False, True])
def test_a_program_that_is_cut_is_never_whole(scripted: Llama, said: str, must_call: bool) -> None:
    begun = f"<|python_tag|>{said}"
    calls, text, end = answer_of(scripted, begun, must_call=must_call)
    assert end == "length"
    if must_call and " " in said:
        assert [name for name, _ in calls] == ["code_interpreter"]
    else:
        assert (calls, text) == ([], said)
    ((name, _),), _, end = answer_of(scripted, begun, ends="stop")
    assert (name, end) == ("code_interpreter", "tool_calls")


def test_a_whole_call_is_told_as_ever(scripted: Llama) -> None:
    assert answer_of(scripted, WHOLE) == ([("weather", '{"city": "Cusco"}')], "", "tool_calls")
    unsuitable = WHOLE.replace('"Cusco"', "1")
    assert answer_of(scripted, unsuitable) == ([], unsuitable, "length")
