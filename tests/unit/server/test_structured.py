"""Structured output and enforced calls over the wire, by random models, which would do none of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import jsonschema
import openai
import pydantic
import pytest
import regex
from tests.tiny import save_tiny, save_tiny_llama3
from tests.unit.constraints.bombs import BOMBS, HARMLESS
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live, running

from puna.constraints import Choices, Compiler, JsonSchema, Regex
from puna.constraints.kept import Kept
from puna.errors import ConstraintError

SCHEMA: Any = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 9},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
        "kinds": {"type": "array", "items": {"enum": ["wool", "hum"]}, "maxItems": 2},
    },
    "required": ["title", "size", "kinds"],
    "additionalProperties": False,
}
BY_SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "llama", "schema": SCHEMA, "strict": True}}


def tool(name: str, *, strict: bool | None = None, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "parameters": parameters} | ({} if strict is None else {"strict": strict})
    return {"type": "function", "function": function}


def by_schema(schema: Any) -> Any:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


ADD = tool("add", n={"type": "integer", "minimum": 0, "maximum": 9}, unit={"enum": ["m", "km"]})
NOW = tool("now")


def test_a_vocabulary_is_looked_at_when_its_model_is_loaded(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hosted(tiny_folder).load() as llama:
        monkeypatch.delattr("llguidance.LLTokenizer")
        for constraint in (Regex("hum"), JsonSchema({"type": "integer"})):
            llama.engine.prepare(constraint)


def test_a_model_is_loaded_though_its_vocabulary_cannot_be_constrained(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise ValueError("a token is too long")

    monkeypatch.setattr("llguidance.LLTokenizer", refuse)
    with (
        hosted(tiny_folder).load() as llama,
        pytest.raises(ConstraintError, match="cannot be constrained: a token is too long"),
    ):
        llama.engine.prepare(Regex("hum"))


def test_what_waited_is_compiled_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    save_tiny(folder)
    in_loop: list[bool] = []
    matcher, compile_ = Compiler.matcher, Compiler._compile

    def forgetful(self: Compiler, constraint: Any, stop_ids: Any, owner: str) -> Any:
        made = matcher(self, constraint, stop_ids, owner)
        self._kept = Kept()  # as when many others come meanwhile
        return made

    def compiled(self: Compiler, constraint: Any, text: str) -> Any:
        in_loop.append(asyncio._get_running_loop() is not None)
        return compile_(self, constraint, text)

    monkeypatch.setattr(Compiler, "matcher", forgetful)
    monkeypatch.setattr(Compiler, "_compile", compiled)
    body = {"model": "tiny", "prompt": "hum", "max_tokens": 8, "response_format": BY_SCHEMA, "n": 3}
    with running([hosted(folder)], max_running=1) as live:
        live.http.post("/v1/completions", json=body).raise_for_status()
    assert in_loop == [False] * 4  # one when the model is loaded


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("served")
    models = []
    for name, save in (("tiny", save_tiny), ("tiny-llama3", save_tiny_llama3)):
        (folder / name).mkdir()
        save(folder / name, max_position_embeddings=4096)  # prompts about tools are long, a byte a token
        models.append(hosted(folder / name, context=3000))
    with running(models) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def token(letter: str) -> str:
    """The id of a printable letter in the tiny models' vocabularies."""
    return str(ord(letter) - ord("!"))


def ask(client: openai.OpenAI, **more: Any) -> Any:
    settings: Any = {"model": "tiny", "max_tokens": 200, "seed": 1, "temperature": 1.0, **more}
    return client.chat.completions.create(messages=[{"role": "user", "content": "hm"}], **settings)


@pytest.mark.parametrize("model", ["tiny", "tiny-llama3"])
@pytest.mark.parametrize("seed", range(3))
def test_json_suits_its_schema_streamed_or_not(client: openai.OpenAI, model: str, seed: int) -> None:
    (choice,) = ask(client, model=model, response_format=BY_SCHEMA, seed=seed).choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    chunks = list(ask(client, model=model, response_format=BY_SCHEMA, seed=seed, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_several_choices_each_suit_it(client: openai.OpenAI) -> None:
    choices = ask(client, response_format=BY_SCHEMA, n=4).choices
    assert len({choice.message.content for choice in choices}) == 4
    for choice in choices:
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_json_mode_begins_an_object(client: openai.OpenAI) -> None:
    # A random model sees no reason to end.
    (choice,) = ask(client, response_format={"type": "json_object"}, logit_bias={token("}"): 90}).choices
    assert choice.finish_reason == "stop"
    assert isinstance(json.loads(choice.message.content), dict)
    endless = {token("}"): -90}
    (choice,) = ask(client, response_format={"type": "json_object"}, max_tokens=5, logit_bias=endless).choices
    assert choice.finish_reason == "length"
    assert choice.message.content[0] == "{"
    assert ask(client, response_format={"type": "text"}).choices[0].message.content[:1] != "{"


class Llama(pydantic.BaseModel):
    sound: str = pydantic.Field(max_length=6)
    heard: bool


def test_the_client_s_parse_gives_the_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tiny",
        messages=[{"role": "user", "content": "hm"}],
        response_format=Llama,
        max_tokens=150,
        seed=2,
    )
    assert isinstance(answer.choices[0].message.parsed, Llama)


OTHERS: list[tuple[Any, str]] = [
    ({"type": "regex", "regex": "[a-f]{3}-[0-9]{2}"}, "[a-f]{3}-[0-9]{2}"),
    ({"type": "grammar", "grammar": 'start: ("la" | "hum"){2,4} "!"'}, "(la|hum){2,4}!"),
    ({"type": "choices", "choices": ["llama", "alpaca"]}, "llama|alpaca"),
]


@pytest.mark.parametrize(("wanted", "pattern"), OTHERS, ids=["regex", "grammar", "choices"])
def test_other_languages_in_chat_and_completions(client: openai.OpenAI, wanted: Any, pattern: str) -> None:
    (choice,) = ask(client, extra_body={"response_format": wanted}).choices
    assert regex.fullmatch(pattern, choice.message.content)
    whole = client.completions.create(
        model="tiny", prompt=["a", "b"], max_tokens=40, seed=3, extra_body={"response_format": wanted}
    )
    assert [choice.finish_reason for choice in whole.choices] == ["stop", "stop"]
    assert all(regex.fullmatch(pattern, choice.text) for choice in whole.choices)
    chunks = client.completions.create(
        model="tiny", prompt="a", max_tokens=40, seed=3, stream=True, extra_body={"response_format": wanted}
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


@pytest.mark.parametrize("model", ["tiny", "tiny-llama3"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_required_is_made(client: openai.OpenAI, model: str, stream: bool) -> None:
    for seed in range(3):
        options: Any = {"model": model, "tools": [ADD, NOW], "tool_choice": "required", "seed": seed}
        calls, reason = calls_of(ask(client, stream=stream, parallel_tool_calls=False, **options), stream)
        assert reason == "tool_calls"
        ((name, arguments),) = calls
        function = {"add": ADD, "now": NOW}[name]["function"]
        jsonschema.validate(json.loads(arguments), function["parameters"])


def calls_of(answer: Any, stream: bool) -> tuple[list[tuple[str, str]], str]:
    if not stream:
        (choice,) = answer.choices
        assert choice.message.content is None
        return [
            (c.function.name, c.function.arguments) for c in choice.message.tool_calls
        ], choice.finish_reason
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    reason = None
    for chunk in answer:
        (choice,) = chunk.choices
        assert not choice.delta.content
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or []:
            names[call.index] = call.function.name or names[call.index]
            arguments[call.index] = arguments.get(call.index, "") + call.function.arguments
    return [(names[i], arguments[i]) for i in sorted(names)], str(reason)


def test_a_required_call_that_is_cut_in_its_name_is_text(client: openai.OpenAI) -> None:
    for seed in range(3):
        options: Any = {"tools": [ADD], "tool_choice": "required", "seed": seed, "max_tokens": 12}
        (choice,) = ask(client, **options).choices
        assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
        assert choice.message.content.startswith('{"name"')


@pytest.mark.parametrize("model", ["tiny", "tiny-llama3"])
def test_a_strict_tool_of_draft_7_may_have_tuples(client: openai.OpenAI, model: str) -> None:
    pair = {"type": "array", "items": [{"enum": ["m", "km"]}, {"type": "boolean"}], "additionalItems": False}
    strict = tool("f", strict=True, pair={**pair, "minItems": 2}, again={"$ref": "#/definitions/flag"})
    parameters = strict["function"]["parameters"]
    parameters["$schema"] = "http://json-schema.org/draft-07/schema#"
    parameters["definitions"] = {"flag": {"type": "boolean"}}
    for seed in range(3):
        answer = ask(client, model=model, tools=[strict], tool_choice="required", seed=seed,
                     parallel_tool_calls=False)  # fmt: skip
        ((_, arguments),), _ = calls_of(answer, False)
        jsonschema.Draft7Validator(parameters).validate(json.loads(arguments))


ADD_CUT = {"tools": [ADD], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 46}
ADD_SCHEMA = ADD["function"]["parameters"]


@pytest.mark.parametrize("model", ["tiny", "tiny-llama3"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_that_is_cut_is_told_as_far_as_it_came(
    client: openai.OpenAI, model: str, stream: bool
) -> None:
    for seed in range(3):
        calls, reason = calls_of(ask(client, model=model, stream=stream, seed=seed, **ADD_CUT), stream)
        ((name, arguments),) = calls
        assert (name, reason) == ("add", "length")
        assert re.fullmatch(r'\{"n": [0-9], "unit":', arguments)


def test_a_call_that_need_not_come_is_text_where_it_is_cut(client: openai.OpenAI) -> None:
    # Held to the very beginning that a required call has, but as JSON that is asked for.
    call = {"type": "object", "properties": {"name": {"const": "add"}, "parameters": ADD_SCHEMA}}
    call["required"] = ["name", "parameters"]
    options: Any = {"tools": [ADD], "max_tokens": 46, **by_schema(call)}
    for seed in range(3):
        (choice,) = ask(client, seed=seed, **options).choices
        assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
        assert choice.message.content.startswith('{"name": "add", "parameters": {"n"')


@pytest.mark.parametrize("model", ["tiny", "tiny-llama3"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_named_tool_is_called_and_once(client: openai.OpenAI, model: str, stream: bool) -> None:
    named: Any = {"type": "function", "function": {"name": "add"}}
    for seed in range(3):
        answer = ask(client, model=model, tools=[NOW, ADD], tool_choice=named, seed=seed, stream=stream)
        ((name, arguments),), _ = calls_of(answer, stream)
        assert name == "add"
        jsonschema.validate(json.loads(arguments), ADD["function"]["parameters"])


def test_several_calls_may_come_where_they_are_required(client: openai.OpenAI) -> None:
    counts = set()
    for seed in range(8):
        answer = ask(client, tools=[NOW], tool_choice="required", seed=seed, max_tokens=400)
        calls, _ = calls_of(answer, False)
        counts.add(len(calls))
        assert {name for name, _ in calls} == {"now"}
    assert max(counts) > 1


def test_a_built_in_tool_is_called_as_the_model_was_taught(client: openai.OpenAI) -> None:
    search: Any = {"type": "function", "function": {"name": "brave_search"}}
    answer = ask(client, model="tiny-llama3", tools=[search], tool_choice="required",
                 logit_bias={token('"'): 60}, parallel_tool_calls=False)  # fmt: skip
    ((name, arguments),), _ = calls_of(answer, False)
    assert name == "brave_search"
    assert set(json.loads(arguments)) == {"query"}


def test_where_both_are_free_the_answer_is_a_call_or_the_json(client: openai.OpenAI) -> None:
    seen = set()
    for seed in range(12):
        (choice,) = ask(client, tools=[NOW], response_format=BY_SCHEMA, seed=seed).choices
        seen.add(choice.finish_reason)
        if choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content), SCHEMA)
        else:
            assert {call.function.name for call in choice.message.tool_calls} == {"now"}
    assert seen == {"stop", "tool_calls"}
    (choice,) = ask(client, tools=[NOW], tool_choice="none", response_format=BY_SCHEMA).choices
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)


UNABLE: list[tuple[dict[str, Any], str]] = [
    (by_schema({"not": {}}), "at #: `not`"),
    (by_schema({"type": "x"}), "at #: Invalid type: x"),
    ({"response_format": {"type": "regex", "regex": "("}}, "unclosed group"),
    ({"response_format": {"type": "grammar", "grammar": "start: x"}}, 'unknown name: "x"'),
    ({"tools": [tool("f", a={"enum": []})], "tool_choice": "required"}, "tool 'f' cannot be called, since"),
    (
        {"tools": [NOW, tool("f", strict=True, a={"not": {}})]},
        "tool 'f': the schema cannot be used at #/properties/a: `not` cannot be enforced while an answer is "
        "written; leave it out and check the answer; or leave out its `strict`",
    ),
    (
        {"tools": [tool("f", strict=True, a={"$ref": "https://example.org/a"})], "tool_choice": "required"},
        "tool 'f': the schema cannot be used at #/properties/a: `$ref` names another document, "
        "'https://example.org/a', and none is fetched; put it under `$defs` and refer to that; or leave out "
        "its `strict`",
    ),
    (
        {"tools": [tool("f", strict=True, a={"type": "string"})], **by_schema({"type": "x"})},
        "the schema cannot be used at #: Invalid type: x",
    ),
    ({"tools": [NOW], "response_format": {"type": "regex", "regex": "a"}}, "must be text or JSON"),
]


@pytest.mark.parametrize(("body", "message"), UNABLE, ids=range(len(UNABLE)))
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_enforced_is_the_client_s_mistake(
    server: Live, body: dict[str, Any], message: str, stream: bool
) -> None:
    whole = {"model": "tiny", "messages": [{"role": "user", "content": "hm"}], "stream": stream, **body}
    answer = server.http.post("/v1/chat/completions", json=whole)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_constraint")
    assert message in error["message"]
    assert all(inner not in error["message"] for inner in ("arguments_0", "begun_0", "call_0", "%json"))


def form_of(constraint: Any) -> Any:
    if isinstance(constraint, JsonSchema):
        return by_schema(constraint.schema)["response_format"]
    if isinstance(constraint, Choices):
        return {"type": "choices", "choices": constraint.texts}
    if isinstance(constraint, Regex):
        return {"type": "regex", "regex": constraint.pattern}
    return {"type": "grammar", "grammar": constraint.grammar}


# They meet a limit only after a while, and then only with a large vocabulary.
GONE_OUT = ("repeated", "many states", "an ambiguous grammar", "a repeating grammar")


# One cannot even be written by Python's json; `deep_json` of the attacks is of its kind.
@pytest.mark.parametrize("name", sorted(set(BOMBS) - {"nested endlessly"}))
def test_a_bomb_is_the_client_s_mistake_or_goes_out(server: Live, name: str) -> None:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 60, "seed": 1}
    answer = server.http.post("/v1/completions", json={**body, "response_format": form_of(BOMBS[name])})
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert 10 < len(error["message"]) < 600
    else:
        assert name in HARMLESS or name in GONE_OUT
    assert server.http.get("/v1/health").json() == {"status": "OK"}


def test_a_constraint_that_runs_into_a_limit_is_the_client_s_mistake(server: Live) -> None:
    bomb = {"type": "grammar", "grammar": 'start: start start | "a" | start start start'}
    goes_on = {"max_tokens": 800, "logit_bias": {"257": -100}}
    body = {"model": "tiny", "prompt": "a", "response_format": bomb, **goes_on}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert "make it simpler" in answer.json()["error"]["message"]
    assert server.http.get("/v1/health").json() == {"status": "OK"}


def test_a_strict_tool_leaves_the_rest_of_the_answer_free(client: openai.OpenAI) -> None:
    strict = tool("add", strict=True, n={"enum": [7]})
    for seed in range(3):
        (choice,) = ask(client, tools=[strict], seed=seed, max_tokens=40).choices
        assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)


def respond(client: openai.OpenAI, form: Any, **more: Any) -> Any:
    settings: Any = {"model": "tiny", "max_output_tokens": 200, "temperature": 1.0, **more}
    return client.responses.create(input="hm", text={"format": form}, **settings)


FLAT: Any = {"type": "json_schema", "name": "llama", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize("seed", range(3))
def test_a_response_is_json_of_its_schema_streamed_or_not(client: openai.OpenAI, seed: int) -> None:
    whole = respond(client, FLAT, extra_body={"seed": seed})
    assert whole.status == "completed"
    jsonschema.validate(json.loads(whole.output_text), SCHEMA)
    assert whole.text.format.schema_ == SCHEMA
    events = list(respond(client, FLAT, extra_body={"seed": seed}, stream=True))
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told == whole.output_text
    assert client.responses.retrieve(whole.id).text.format == whole.text.format


def test_a_response_is_in_other_languages_too(client: openai.OpenAI) -> None:
    for form, pattern in OTHERS:
        assert regex.fullmatch(pattern, respond(client, form).output_text)
    wool = respond(client, {"type": "json_object"}, extra_body={"seed": 1}, max_output_tokens=16)
    assert wool.output_text[0] == "{"
    assert respond(client, {"type": "text"}).output_text[:1] != "{"
    parsed = client.responses.parse(model="tiny", input="hm", text_format=Llama, max_output_tokens=150)
    assert isinstance(parsed.output_parsed, Llama)


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_response_cannot_be_held_to_is_the_client_s_mistake(
    client: openai.OpenAI, stream: bool
) -> None:
    for form in ({**FLAT, "schema": {"not": {}}}, {"type": "regex", "regex": "("}):
        with pytest.raises(openai.BadRequestError) as refusal:
            respond(client, form, stream=stream)
        assert refusal.value.code == "invalid_constraint"


def respond_with_a_call(client: openai.OpenAI, max_tokens: int, *, stream: bool) -> Any:
    tools: Any = [{"type": "function", **ADD["function"]}]
    return client.responses.create(
        model="tiny", input="hm", tools=tools, tool_choice="required", max_output_tokens=max_tokens,
        parallel_tool_calls=False, stream=stream,
    )  # fmt: skip


def test_a_response_calls_what_is_required(client: openai.OpenAI) -> None:
    for stream in (False, True):
        answer = respond_with_a_call(client, 200, stream=stream)
        if stream:
            answer = list(answer)[-1].response
        (call,) = answer.output
        assert (call.type, call.name) == ("function_call", "add")
        jsonschema.validate(json.loads(call.arguments), ADD["function"]["parameters"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_incomplete_where_its_call_is_cut(client: openai.OpenAI, stream: bool) -> None:
    answer = respond_with_a_call(client, 46, stream=stream)
    if stream:
        events = list(answer)
        kinds = [event.type for event in events]
        assert kinds[-2:] == ["response.output_item.done", "response.incomplete"]
        answer = events[-1].response
        told = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        assert "".join(told) == answer.output[0].arguments
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "add", "incomplete")
    assert re.fullmatch(r'\{"n": [0-9], "unit":', call.arguments)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}])
def test_anthropic_s_clients_have_calls_enforced_too(server: Live, choice: Any) -> None:
    tools = [{"name": "add", "input_schema": ADD["function"]["parameters"]}]
    said = [{"role": "user", "content": "hm"}]
    choice = {**choice, "disable_parallel_tool_use": True}
    body = {"model": "tiny", "max_tokens": 200, "messages": said, "tools": tools, "tool_choice": choice}
    answer = server.http.post("/v1/messages", json=body).json()
    assert answer["stop_reason"] == "tool_use"
    (call,) = answer["content"]
    assert (call["type"], call["name"]) == ("tool_use", "add")
    jsonschema.validate(call["input"], ADD["function"]["parameters"])


def test_anthropic_s_clients_get_what_there_is_of_a_call_that_is_cut(server: Live) -> None:
    asked: Any = {
        "model": "tiny",
        "max_tokens": 46,
        "messages": [{"role": "user", "content": "hm"}],
        "tools": [{"name": "add", "input_schema": ADD_SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    base = server.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as claude:
        whole = claude.messages.create(**asked)
        with claude.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    for message in (whole, streamed):
        (call,) = message.content
        assert (message.stop_reason, call.type, call.name) == ("max_tokens", "tool_use", "add")
        assert list(call.input) == ["n"]


class Sound(pydantic.BaseModel):
    """Has an end: Anthropic's client sends no lengths."""

    sound: Literal["hum", "spit"]


def test_anthropic_s_client_parses_a_message(server: Live) -> None:
    base = server.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as claude:
        said: Any = [{"role": "user", "content": "hm"}]
        message = claude.messages.parse(model="tiny", max_tokens=150, messages=said, output_format=Sound)
    assert message.parsed_output is not None
    assert message.parsed_output.sound in ("hum", "spit")


def test_what_a_message_cannot_be_held_to_is_refused(server: Live) -> None:
    config = {"format": {"type": "json_schema", "schema": {"not": {}}}}
    said = [{"role": "user", "content": "hm"}]
    body = {"model": "tiny", "max_tokens": 9, "messages": said, "output_config": config}
    answer = server.http.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
