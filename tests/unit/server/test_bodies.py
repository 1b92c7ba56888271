"""Bodies: how large they may be, what official clients send, and where an error says that they are wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite
from tests.unit.server.live import Live

from puna.server.schemas.items import Reasoning
from puna.server.state.tables import Json

MAX_CONTAINERS = 32_768
MAX_COMMAS = 262_144
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
USER: Any = [{"role": "user", "content": "hum"}]
FUNCTION: Any = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
CALL: Any = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "max_tokens": 16, "messages": USER, **fields}


def messages(**fields: Any) -> dict[str, Any]:
    return chat(**fields)


def response(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "max_output_tokens": 16, "input": "hum", **fields}


def user(n_messages: int, n_parts: int, kind: str = "text") -> list[Any]:
    return [{"role": "user", "content": [{"type": kind, "text": ""}] * n_parts}] * n_messages


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(messages=user(33, 1000))),
        (MESSAGES, messages(messages=user(33, 1000))),
        (RESPONSES, response(input=user(33, 1000, "input_text"))),
        ("/v1/conversations", {"items": user(33, 1000, "input_text")}),
        ("/v1/embeddings", {"model": "tiny", "input": [[]] * (MAX_CONTAINERS + 1)}),
        (
            CHAT,
            chat(tools=[{"type": "function", "function": {"name": "t", "parameters": {"a": [{}] * 40_000}}}]),
        ),
    ],
    ids=["chat", "messages", "responses", "conversations", "embeddings", "schema"],
)
def test_many_objects_are_refused_before_they_are_made(live: Live, path: str, body: Any) -> None:
    reply = live.http.post(path, json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert f"a body may have {MAX_CONTAINERS} objects and lists, got " in error["message"]
    if path != MESSAGES:
        assert error["code"] == "too_many_objects"


def test_so_many_objects_are_counted(live: Live) -> None:
    body = {"model": "tiny", "input": [[]] * (MAX_CONTAINERS - 2)}  # the body and the list are two
    assert live.http.post("/v1/embeddings", json=body).json()["error"]["code"] is None
    body["input"].append([])
    reply = live.http.post("/v1/embeddings", json=body)
    assert f"objects and lists, got {MAX_CONTAINERS + 1};" in reply.json()["error"]["message"]


def test_many_numbers_are_refused_before_they_are_read(live: Live) -> None:
    body = {"model": "tiny", "tokens": [1] * MAX_COMMAS}  # the comma between both fields is one more
    assert live.http.post("/v1/detokenize", json=body).status_code == 200
    body["tokens"].append(1)  # type: ignore[attr-defined]
    reply = live.http.post("/v1/detokenize", json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "too_many_values"
    assert f"may have {MAX_COMMAS} commas between values, got {MAX_COMMAS + 1};" in error["message"]


def test_commas_in_texts_are_between_no_values(live: Live) -> None:
    body = {"model": "tiny", "prompt": "a," * (MAX_COMMAS + 1)}
    assert live.http.post("/v1/tokenize", json=body).status_code == 200


@pytest.mark.parametrize(
    "text", ["{[" * 20_000, '\\"{' * 40_000, "\\" * 3 + "{" * 40_000, '"' + "[" * 40_000], ids=range(4)
)
def test_brackets_in_texts_are_no_objects(live: Live, text: str) -> None:
    assert live.http.post("/v1/tokenize", json={"model": "tiny", "prompt": text}).status_code == 200


def test_long_conversations_and_token_ids_are_not_too_many(live: Live) -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "a"}]}] * 2048
    turns += [{"role": "assistant", "content": None, "tool_calls": [CALL]}] * 2048
    for path, body in (
        (CHAT, chat(messages=turns)),
        ("/v1/completions", {"model": "tiny", "prompt": [1] * 200_000}),
        ("/v1/embeddings", {"model": "tiny", "input": [[1]] * 2048}),
    ):
        reply = live.http.post(path, json=body)
        assert "objects and lists" not in reply.text


def call(arguments: str) -> dict[str, Any]:
    return {**CALL, "function": {"name": "weather", "arguments": arguments}}


def call_item(arguments: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "c", "name": "weather", "arguments": arguments}


def with_calls(path: str, *arguments: str) -> dict[str, Any]:
    """A body with earlier calls."""
    if path == RESPONSES:
        return response(input=[*USER, *map(call_item, arguments)])
    return chat(messages=[*USER, {"role": "assistant", "tool_calls": [*map(call, arguments)]}])


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_many_objects_in_the_arguments_of_calls_are_refused_too(live: Live, path: str) -> None:
    lists = ",".join(["[]"] * (MAX_CONTAINERS // 2 - 2))
    fits, more = f'{{"a":[{lists}]}}', f'{{"a":[{lists},[]]}}'
    reply = live.http.post(path, json=with_calls(path, fits, fits))
    assert "objects and lists" not in reply.text
    reply = live.http.post(path, json=with_calls(path, fits, more))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "too_many_objects")
    what = (
        f"the arguments of all calls may have {MAX_CONTAINERS} objects and lists, got {MAX_CONTAINERS + 1};"
    )
    assert what in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_arguments_of_calls_are_as_deep_as_a_body(live: Live, path: str) -> None:
    for depth, status in ((64, 200), (65, 400)):
        reply = live.http.post(path, json=with_calls(path, '{"a":' * depth + "1" + "}" * depth))
        assert reply.status_code == status, reply.text
    assert "may be nested 64 deep" in reply.json()["error"]["message"]


def test_arguments_that_are_no_json_pass_as_they_are(live: Live) -> None:
    for arguments in ('{"city": ', "hm", '"' + "[" * 40_000, '{"text": "' + "{" * 40_000 + '"}'):
        reply = live.http.post(CHAT, json=with_calls(CHAT, arguments))
        assert "objects and lists" not in reply.text
        assert reply.status_code == 200 or reply.json()["error"]["code"] == "context_length_exceeded"


def test_messages_pass_as_clients_send_them(live: Live) -> None:
    dumped = {"annotations": None, "audio": None, "function_call": None, "refusal": None, "tool_calls": None}
    said: Any = [
        *USER,
        {"role": "assistant", "content": "hm", **dumped},
        {"role": "assistant", "content": None, **dumped, "annotations": [], "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "name": "weather", "content": "33 degrees"},
    ]
    reply = live.http.post(CHAT, json=chat(messages=said, tools=[{"type": "function", "function": FUNCTION}]))
    assert reply.status_code == 200, reply.text


def test_answers_pass_as_clients_dump_what_they_have_parsed(live: Live) -> None:
    called = {"city": "Cusco"}
    function = {"name": "weather", "arguments": "{}", "parsed_arguments": called}
    calls = [{**CALL, "function": function, "index": 0}]
    answer = {"role": "assistant", "content": "hm", "parsed": called, "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "c", "content": "33 degrees"}
    call = {"type": "function_call", "call_id": "c", **function}
    text = {"type": "output_text", "text": "hm", "annotations": [], "logprobs": None, "parsed": called}
    items = [*USER, {"role": "assistant", "content": [text]}, call]
    items.append({"type": "function_call_output", "call_id": "c", "output": "33 degrees"})
    use = {
        "type": "tool_use",
        "id": "c",
        "name": "weather",
        "input": called,
        "caller": None,
        "toolset_name": None,
    }
    used = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "33 degrees"}]}
    for path, body in (
        (CHAT, chat(messages=[*USER, answer, result], store=True)),
        (RESPONSES, response(input=items)),
        (MESSAGES, messages(messages=[*USER, {"role": "assistant", "content": [use]}, used])),
    ):
        reply = live.http.post(path, json=body)
        assert reply.status_code == 200, reply.text


def test_an_answer_with_sound_or_old_calls_is_refused(live: Live) -> None:
    for field in ({"audio": {"id": "a"}}, {"function_call": {"name": "a", "arguments": ""}}):
        said: Any = [*USER, {"role": "assistant", "content": "hm", **field}]
        reply = live.http.post(CHAT, json=chat(messages=said))
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == f"messages[1].{next(iter(field))}"


NAMED: Any = {"type": "function", "function": {"name": "weather"}}
ALLOWED: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        (CHAT, chat(tool_choice="required"), "`tools`"),
        (CHAT, chat(tool_choice=NAMED), "`tools`"),
        (CHAT, chat(tool_choice=NAMED, tools=[]), "`tools`"),
        (CHAT, chat(top_logprobs=3), "`logprobs: true`"),
        (CHAT, chat(top_logprobs=3, logprobs=False), "`logprobs: true`"),
        (CHAT, chat(stream_options={"include_usage": True}), "`stream: true`"),
        ("/v1/completions", {"model": "tiny", "prompt": "a", "stream_options": {}}, "`stream: true`"),
        (RESPONSES, response(tool_choice="required"), "`tools`"),
        (RESPONSES, response(tool_choice={"type": "function", "name": "weather"}), "`tools`"),
        (RESPONSES, response(tool_choice=ALLOWED), "`tools`"),
        (RESPONSES, response(stream_options={"include_obfuscation": False}), "`stream: true`"),
        (MESSAGES, messages(tool_choice={"type": "any"}), "`tools`"),
        (MESSAGES, messages(tool_choice={"type": "tool", "name": "weather"}), "`tools`"),
    ],
)
def test_what_would_change_nothing_is_refused(live: Live, path: str, body: Any, what: str) -> None:
    reply = live.http.post(path, json=body)
    assert reply.status_code == 400, reply.text
    field = {
        "`tools`": "tool_choice",
        "`logprobs: true`": "top_logprobs",
        "`stream: true`": "stream_options",
    }[what]
    error = reply.json()["error"]
    assert error["message"] == f"{field}: needs {what}; give that, or leave this out"
    assert path == MESSAGES or error["param"] == field


def test_what_asks_for_nothing_passes(live: Live) -> None:
    for path, body in (
        (CHAT, chat(tool_choice="none")),
        (CHAT, chat(tool_choice="auto", tools=[])),
        (CHAT, chat(top_logprobs=0, stream_options=None)),
        (RESPONSES, response(tool_choice="auto", stream_options=None)),
        (MESSAGES, messages(tool_choice={"type": "auto"})),
        (MESSAGES, messages(tool_choice={"type": "none"}, tools=[])),
    ):
        reply = live.http.post(path, json=body)
        assert reply.status_code == 200, reply.text


def test_a_body_in_another_encoding_is_told_so(live: Live) -> None:
    body = json.dumps(chat(user="Cuzco, Per\u00fa"), ensure_ascii=False).encode("latin-1")
    reply = live.http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_json")
    place = body.index(b"\xfa")
    said = f"the body must be UTF-8, and its byte {place} is not; encode the text as UTF-8"
    assert reply.json()["error"]["message"] == said


HALF = "\ud800"
TOOL = {"type": "function", "name": "weather", "description": HALF, "parameters": {"default": "NUMBER"}}


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, response(input=[{"type": "reasoning", "summary": ["NUMBER", HALF]}, *USER])),
        (RESPONSES, response(tools=[TOOL])),
        ("/v1/conversations", {"items": [{"type": "reasoning", "summary": ["NUMBER", HALF]}]}),
        (CHAT, chat(tools=[{"type": "function", "function": {**FUNCTION, "parameters": {"a": "NUMBER"}}}])),
        (MESSAGES, messages(tools=[{"name": "weather", "input_schema": {"default": "NUMBER"}}])),
    ],
    ids=["reasoning", "tool", "conversation", "chat", "messages"],
)
def test_numbers_that_json_does_not_have_do_not_come_in(
    live: Live, path: str, body: Any, number: str
) -> None:
    text = json.dumps(body).replace('"NUMBER"', number)
    reply = live.http.post(path, content=text, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert f"a number must be finite, got {number}" in reply.json()["error"]["message"]


def test_what_is_no_json_is_neither_kept_nor_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Json().process_bind_param({"a": math.inf}, sqlite.dialect())
    with pytest.raises(ValueError, match="JSON"):
        Reasoning(type="reasoning", id="a", status="completed", summary=[math.inf, HALF]).as_json()


TEXT: Any = {"type": "text", "text": "a"}
WRONG_PART: Any = {"type": "input_text", "text": 7, "annotations": None}
NAMELESS: Any = {"type": "json_schema", "json_schema": {"schema": {}}}


def of_parts(*parts: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": [*parts]}])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, of_parts(TEXT, {"type": "text"}), "messages[0].content[1].text"),
        (CHAT, of_parts(TEXT, {"type": "text", "text": 7}), "messages[0].content[1].text"),
        (CHAT, of_parts({**TEXT, "user": 1}), "messages[0].content[0].user"),
        (CHAT, chat(messages=[{"role": "user", "content": 7}]), "messages[0].content"),
        (CHAT, chat(messages=[{"role": "root", "content": "a"}]), "messages[0]"),
        (CHAT, chat(stop=["a", 7]), "stop[1]"),
        (CHAT, chat(response_format=NAMELESS), "response_format.json_schema.name"),
        (CHAT, chat(tools=[{"type": "function", "function": {"name": 7}}]), "tools[0].function.name"),
        (CHAT, chat(logit_bias={"5": "a"}), "logit_bias.5"),
        (CHAT, chat(tools=[7]), "tools[0]"),
        (RESPONSES, response(input=[{"role": "user", "content": [WRONG_PART]}]), "input[0].content[0].text"),
        (RESPONSES, response(input=[{"type": "message", "content": "a", "x": None}]), "input[0].role"),
        (RESPONSES, response(tools=[{"type": "web_search"}]), "tools"),
        (RESPONSES, response(tool_choice={"type": "function"}), "tool_choice.name"),
        (RESPONSES, response(text={"format": {"type": "regex"}}), "text.format.regex"),
        ("/v1/completions", {"model": "tiny", "prompt": [[1], ["a"]]}, "prompt[1][0]"),
    ],
)
def test_errors_name_the_place_in_the_clients_body(live: Live, path: str, body: Any, param: str) -> None:
    reply = live.http.post(path, json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("path", "field", "more"),
    [
        (CHAT, "messages", {}),
        (CHAT, "messages", {"stream": True}),
        ("/v1/completions", "prompt", {}),
        ("/v1/completions", "prompt", {"echo": True, "logprobs": 1, "max_tokens": 0}),
        ("/v1/openai/v1/completions", "prompt", {"stream": True}),
        ("/v1/embeddings", "input", {}),
        (RESPONSES, "input", {}),
        (RESPONSES, "input", {"stream": True}),
        (f"{RESPONSES}/compact", "input", {"instructions": "x" * 600}),  # what was said is left out
        (MESSAGES, "messages", {"max_tokens": 1}),
    ],
)
def test_a_prompt_that_does_not_fit_is_named_as_its_route_has_it(
    live: Live, path: str, field: str, more: Any
) -> None:
    long = "x" * 600
    given = [{"role": "user", "content": long}] if field == "messages" else long
    reply = live.http.post(path, json={"model": "tiny", field: given, **more})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert "fit the context of 512" in error["message"]
    assert path == MESSAGES or (error["param"], error["code"]) == (field, "context_length_exceeded")


def test_errors_of_anthropics_name_the_place(live: Live) -> None:
    block = {"type": "text", "text": "a", "wrong": 1}
    reply = live.http.post(MESSAGES, json=messages(messages=[{"role": "user", "content": [block]}]))
    assert reply.json()["error"]["message"].startswith("messages[0].content[0].wrong: ")


def test_errors_name_the_field_of_a_query(live: Live) -> None:
    assert live.http.get("/v1/responses?limit=0").json()["error"]["param"] == "limit"
