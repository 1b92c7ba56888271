"""Tool calls over the wire, with an engine that says what the test wants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.unit.constraints import walks
from tests.unit.server.live import Live
from tests.unit.server.scripted import ScriptedEngine

from puna import Llama
from puna.constraints import Compiler

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, word: str, **more: Any) -> Any:
    more.setdefault("tools", [WEATHER])
    messages: Any = [{"role": "user", "content": word}]
    return client.chat.completions.create(model="scripted", messages=messages, **more)


def test_a_call_is_told_with_its_arguments(client: openai.OpenAI) -> None:
    (choice,) = ask(client, "one call").choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Cusco"}
    assert call.id.startswith("call_")


def test_a_streamed_call_comes_in_pieces_that_join(client: openai.OpenAI) -> None:
    deltas = [chunk.choices[0] for chunk in ask(client, "one call", stream=True)]
    calls = [call for choice in deltas for call in choice.delta.tool_calls or []]
    first, *rest = calls
    assert (first.index, first.type, first.function.name) == (0, "function", "weather")
    assert first.id.startswith("call_")
    assert len(rest) > 1
    assert all(call.id is None and call.function.name is None for call in rest)
    assert json.loads("".join(call.function.arguments for call in calls)) == {"city": "Cusco"}
    assert deltas[-1].finish_reason == "tool_calls"
    assert all(choice.delta.content in (None, "") for choice in deltas)


def test_several_calls_have_numbers_and_ids(client: openai.OpenAI) -> None:
    calls = ask(client, "two calls").choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Cusco", "Puno"]
    assert len({call.id for call in calls}) == 2
    streamed: dict[int, str] = {}
    for chunk in ask(client, "two calls", stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            streamed[call.index] = streamed.get(call.index, "") + call.function.arguments
    assert [json.loads(text)["city"] for _, text in sorted(streamed.items())] == ["Cusco", "Puno"]


def test_one_call_where_several_are_not_wanted(client: openai.OpenAI) -> None:
    (choice,) = ask(client, "two calls", parallel_tool_calls=False).choices
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Cusco"}
    assert choice.finish_reason == "tool_calls"
    chunks = list(ask(client, "two calls", parallel_tool_calls=False, stream=True))
    assert {c.index for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []} == {0}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_words_before_a_call_are_content(client: openai.OpenAI) -> None:
    (choice,) = ask(client, "talk and call").choices
    assert choice.message.content.strip() == "Let me look."
    assert len(choice.message.tool_calls) == 1


@pytest.mark.parametrize("word", ["undeclared", "malformed", "wrong type"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_call_is_text(client: openai.OpenAI, scripted: Llama, word: str, stream: bool) -> None:
    said = scripted.engine._script[word]  # type: ignore[attr-defined]
    if stream:
        chunks = list(ask(client, word, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == said
        assert all(c.choices[0].delta.tool_calls is None for c in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop"
        return
    (choice,) = ask(client, word).choices
    assert (choice.message.content, choice.finish_reason) == (said, "stop")
    assert choice.message.tool_calls is None


def test_no_choice_means_text(client: openai.OpenAI, scripted: Llama) -> None:
    (choice,) = ask(client, "two calls", tool_choice="none").choices
    assert choice.message.tool_calls is None
    assert choice.message.content == scripted.engine._script["two calls"]  # type: ignore[attr-defined]


def prompt_of(scripted: Llama) -> str:
    engine = scripted.engine
    assert isinstance(engine, ScriptedEngine)
    return scripted.tokenizer.decode(engine.prompts[-1], show_special=True)


def test_what_must_be_called_is_in_the_prompt(client: openai.OpenAI, scripted: Llama) -> None:
    ask(client, "one call", tool_choice="required")
    assert "You MUST use one of the provided functions" in prompt_of(scripted)
    named: Any = {"type": "function", "function": {"name": "weather"}}
    (choice,) = ask(client, "one call", tool_choice=named).choices
    assert "You MUST use the tool `weather`" in prompt_of(scripted)
    assert choice.finish_reason == "tool_calls"


def test_only_the_named_tool_is_called(client: openai.OpenAI) -> None:
    other: Any = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
    named: Any = {"type": "function", "function": {"name": "other"}}
    (choice,) = ask(client, "one call", tools=[WEATHER, other], tool_choice=named).choices
    assert choice.message.tool_calls is None


STRICT: Any = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
GOOD_CALL = '<|python_tag|>{"name": "weather", "parameters": {"city": "Cusco"}}'
BAD_CALL = '<|python_tag|>{"name": "weather", "parameters": {"city": 7}}'
OTHER_CALL = '{"name": "launch", "parameters": {"city": "Cusco"}}'


def is_allowed(scripted: Llama, text: str) -> bool:
    """Whether the constraint of the last request allows an answer."""
    engine = scripted.engine
    assert isinstance(engine, ScriptedEngine)
    constraint = engine.constraints[-1]
    if constraint is None:
        return True
    tokenizer = scripted.tokenizer
    text = text.removeprefix("<|python_tag|>")
    return walks.is_allowed(
        Compiler(tokenizer, tokenizer.vocab_size), constraint, text, min(tokenizer.eos_ids)
    )


NAMED: Any = {"type": "function", "function": {"name": "weather"}}
HELD: list[tuple[dict[str, Any], tuple[bool, bool, bool, bool]]] = [
    # May it say: a call that suits the schema, one that does not, one of no tool, a text?
    ({"tools": [WEATHER]}, (True, True, True, True)),
    ({"tools": [WEATHER], "tool_choice": "auto"}, (True, True, True, True)),
    ({"tools": [STRICT], "tool_choice": "auto"}, (True, False, True, True)),
    ({"tools": [STRICT], "tool_choice": "none"}, (True, True, True, True)),
    ({"tools": [WEATHER], "tool_choice": "required"}, (True, False, False, False)),
    ({"tools": [STRICT], "tool_choice": "required"}, (True, False, False, False)),
    ({"tools": [WEATHER], "tool_choice": NAMED}, (True, False, False, False)),
]


@pytest.mark.parametrize(("options", "expected"), HELD, ids=range(len(HELD)))
@pytest.mark.parametrize("stream", [False, True])
def test_what_an_answer_is_held_to(
    client: openai.OpenAI, scripted: Llama, options: Any, expected: tuple[bool, ...], stream: bool
) -> None:
    answer = ask(client, "one call", stream=stream, **options)
    if stream:
        list(answer)
    texts = (GOOD_CALL, BAD_CALL, OTHER_CALL, "It is warm there.")
    assert tuple(is_allowed(scripted, text) for text in texts) == expected


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("word", ["undeclared", "malformed", "wrong type"])
def test_what_is_no_call_is_text_even_where_one_is_due(client: openai.OpenAI, word: str, choice: Any) -> None:
    (answer,) = ask(client, word, tool_choice=choice).choices
    assert answer.message.tool_calls is None
    assert answer.message.content


def test_an_unknown_tool_choice_is_the_client_s_mistake(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "launch"}}
    with pytest.raises(openai.BadRequestError, match="'launch' is no tool"):
        ask(client, "one call", tool_choice=named)


def test_results_go_back_to_the_model(client: openai.OpenAI, scripted: Llama) -> None:
    call = ask(client, "one call").choices[0].message
    messages: Any = [
        {"role": "user", "content": "Is it warm?"},
        call.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "21 degrees"},
    ]
    client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
    prompt = prompt_of(scripted)
    assert "<|start_header_id|>ipython<|end_header_id|>\n\n21 degrees<|eot_id|>" in prompt
    assert prompt.count("<|eom_id|>") == 1


def test_a_stop_text_ends_text_where_tools_are_offered(client: openai.OpenAI) -> None:
    for tools in ([WEATHER], openai.omit):
        (choice,) = ask(client, "stop here", tools=tools, stop=["END"]).choices
        assert (choice.message.content, choice.finish_reason) == ("before ", "stop")


def test_a_costly_pattern_does_not_hang_the_server(client: openai.OpenAI, live: Live) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "match",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}},
                "patternProperties": {"^(a|a)*$": {"type": "string"}},
            },
        },
    }
    (choice,) = ask(client, "costly", tools=[tool], timeout=10).choices
    assert choice.message.tool_calls is None  # "!" is not matched
    assert live.http.get("/v1/health").json() == {"status": "OK"}


def test_a_schema_that_multiplies_itself_does_not_hang_the_server(client: openai.OpenAI) -> None:
    definitions = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(40)
    }
    definitions["d40"] = {"type": "object"}
    tool: Any = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "allOf": [{"$ref": "#/$defs/d0"}], "$defs": definitions},
        },
    }
    (choice,) = ask(client, "one call", tools=[tool], timeout=10).choices
    assert choice.message.tool_calls[0].function.name == "weather"  # what cannot be checked is not
    tool["function"]["strict"] = True
    (choice,) = ask(client, "one call", tools=[tool], timeout=10).choices
    assert choice.message.tool_calls is None
