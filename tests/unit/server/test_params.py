"""Where an error says that it is: the way through the client's own body."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.live import Live

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SAID = [{"role": "user", "content": "hum"}]


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


def test_an_error_names_a_parameter_of_the_path_or_query(live: Live) -> None:
    answer = live.http.get("/v1/chat/completions", params={"limit": "many"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")
