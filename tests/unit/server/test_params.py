"""Where an error says that it is: the way through the client's own body."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.live import Live

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SAID = [{"role": "user", "content": "hum"}]
TOOL = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (CHAT, {"messages": [*SAID, {"role": "llama", "content": "hum"}]}, "messages[1]"),
        (CHAT, {"messages": [*SAID, {"role": "user", "content": 5}]}, "messages[1].content"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": SAID, "stop": ["a", 3]}, "stop[1]"),
        (CHAT, {"messages": SAID, "logit_bias": {"x": 1}}, "logit_bias.x"),
        (
            CHAT,
            {"messages": SAID, "tool_choice": {"type": "function", "function": {}}},
            "tool_choice.function.name",
        ),
        (
            CHAT,
            {"messages": SAID, "response_format": {"type": "json_schema", "json_schema": {"name": 1}}},
            "response_format.json_schema.name",
        ),
        (CHAT, {"messages": SAID, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 3}]}]},
            "input[0].content[0].text",
        ),
        (
            RESPONSES,
            {"input": [{"type": "function_call_output", "call_id": 3, "output": "x"}]},
            "input[0].call_id",
        ),
    ],
)
def test_an_error_names_the_place_in_the_body(
    live: Live, route: str, body: dict[str, Any], param: str
) -> None:
    answer = live.http.post(route, json={"model": "tiny", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: ")


TOO_MANY = "List should have at most {} after validation, not {}"


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("/v1/embeddings", {"input": ["x"] * 2049}, f"input: {TOO_MANY.format('2048 items', 2049)}"),
        ("/v1/embeddings", {"input": [[1]] * 2049}, f"input: {TOO_MANY.format('2048 items', 2049)}"),
        ("/v1/completions", {"prompt": ["x"] * 3000}, f"prompt: {TOO_MANY.format('256 items', 3000)}"),
        ("/v1/completions", {"prompt": [1, -1]}, "prompt[1]: Input should be greater than or equal to 0"),
        (CHAT, {"messages": SAID, "stop": ["a"] * 17}, f"stop: {TOO_MANY.format('16 items', 17)}"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 1025}]},
            f"messages[0].content: {TOO_MANY.format('1024 items', 1025)}",
        ),
        (
            CHAT,
            {"messages": SAID, "tools": [TOOL], "tool_choice": "some"},
            "tool_choice: Input should be 'auto', 'none' or 'required', got 'some'",
        ),
        (
            CHAT,
            {"messages": SAID, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": 7}}},
            "tool_choice.function.name: Input should be a valid string",
        ),
        (
            RESPONSES,
            {"input": "hum", "tool_choice": {"type": "function", "name": 7}},
            "tool_choice.name: Input should be a valid string",
        ),
        (
            RESPONSES,
            {"input": "hum", "tool_choice": {"type": "allowed_tools", "mode": "any", "tools": []}},
            "tool_choice.mode: Input should be 'auto' or 'required', got 'any'",
        ),
    ],
)
def test_an_error_is_about_the_form_that_was_meant(
    live: Live, route: str, body: dict[str, Any], said: str
) -> None:
    answer = live.http.post(route, json={"model": "tiny", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["message"], error["param"]) == (400, said, said.partition(":")[0])


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", **function}}


REMOTE = {"type": "object", "properties": {"city": {"$ref": "https://example.org/city"}}}
FORM = {"type": "regex", "regex": "("}
NAMED = {"type": "function", "function": {"name": "moon"}}
ALLOWED = {"mode": "auto", "tools": [NAMED]}


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        (RESPONSES, {}, "input"),
        (RESPONSES, {"input": "hum", "conversation": "conv_none"}, "conversation"),
        (RESPONSES, {"input": "hum", "previous_response_id": "resp_none"}, "previous_response_id"),
        (RESPONSES, {"input": "hum", "prompt": {"id": "pmpt_none"}}, "prompt"),
        (RESPONSES, {"input": "hum", "text": {"format": FORM}}, "text.format"),
        (f"{RESPONSES}/input_tokens", {"input": "hum", "text": {"format": FORM}}, "text.format"),
        (RESPONSES, {"input": "hum", "tools": [{"type": "function", "name": "a b"}]}, "tools"),
        (
            RESPONSES,
            {
                "input": "hum",
                "tools": [{"type": "function", "name": "weather"}],
                "tool_choice": {"type": "function", "name": "moon"},
            },
            "tool_choice",
        ),
        (CHAT, {"messages": SAID, "response_format": FORM}, "response_format"),
        (CHAT, {"messages": SAID, "tools": [tool()], "tool_choice": NAMED}, "tool_choice"),
        (
            CHAT,
            {
                "messages": SAID,
                "tools": [tool()],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED},
            },
            "tool_choice",
        ),
        (CHAT, {"messages": SAID, "tools": [tool(name="a b")]}, "tools"),
        (CHAT, {"messages": SAID, "tools": [tool(), tool()]}, "tools"),
        (CHAT, {"messages": SAID, "tools": [tool(strict=True, parameters={"type": "array"})]}, "tools"),
        (CHAT, {"messages": SAID, "tools": [tool(strict=True, parameters=REMOTE)]}, "tools"),
        (CHAT, {"messages": SAID, "tools": [tool()], "response_format": FORM}, "response_format"),
        ("/v1/completions", {"prompt": ""}, "prompt"),
        ("/v1/completions", {"prompt": [2**30]}, "prompt"),
        ("/v1/completions", {"prompt": [2**30], "echo": True, "max_tokens": 0, "logprobs": 1}, "prompt"),
        ("/v1/completions", {"prompt": "hum", "response_format": FORM}, "response_format"),
        ("/v1/completions", {"prompt": "hum", "logit_bias": {"99999999": 1}}, "logit_bias"),
        (CHAT, {"messages": SAID, "logit_bias": {"99999999": 1}, "stream": True}, "logit_bias"),
        ("/v1/embeddings", {"input": ""}, "input"),
        ("/v1/embeddings", {"input": [2**30]}, "input"),
        ("/v1/embeddings", {"input": "hum", "dimensions": 3}, "dimensions"),
        ("/v1/prompts", {"prompt": "Hum of {{ wool }}."}, "variables"),
    ],
)
def test_an_error_that_is_found_later_names_its_field_too(
    live: Live, route: str, body: dict[str, Any], param: str
) -> None:
    given = body if route == "/v1/prompts" else {"model": "tiny", **body}
    answer = live.http.post(route, json=given)
    assert (answer.status_code in (400, 404), answer.json()["error"]["param"]) == (True, param), answer.text


@pytest.mark.parametrize("rest", ["", "/input_items"])
def test_an_error_names_no_field_that_was_not_sent(live: Live, rest: str) -> None:
    answer = live.http.get(f"{RESPONSES}/resp_none{rest}")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (404, None, None)
    assert error["message"].startswith("Response 'resp_none' not found.")


def test_an_error_names_a_parameter_of_the_path_or_query(live: Live) -> None:
    answer = live.http.get("/v1/chat/completions", params={"limit": "many"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")
