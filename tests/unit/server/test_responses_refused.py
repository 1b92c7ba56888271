"""Responses that are asked for in a wrong way."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.live import Live
from tests.unit.server.test_responses import WEATHER

CALL = {"type": "function_call", "call_id": "c", "name": "x", "arguments": "{}"}
NOTHING = {"type": "function", "name": "x"}
WRONG: dict[str, Any] = {
    "no input": {},
    "empty input": {"input": []},
    "no model": {"model": None, "input": "x"},
    "both contexts": {"input": "x", "previous_response_id": "resp_x", "conversation": "conv_x"},
    "too few tokens": {"input": "x", "max_output_tokens": 15},
    "no tool calls": {"input": "x", "max_tool_calls": 0},
    "a tool of the server": {"input": "x", "tools": [{"type": "web_search"}]},
    "a remote tool": {"input": "x", "tools": [{"type": "mcp", "server_label": "a", "server_url": "http://a"}]},
    "a picture": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b"}]}]},
    "a file": {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
    "an unknown item": {"input": [{"type": "web_search_call", "id": "x"}]},
    "an item of no kind": {"input": [{"content": "x"}]},
    "an unknown role": {"input": [{"role": "wizard", "content": "x"}]},
    "an unknown field": {"input": "x", "colour": "red"},
    "a tool that is none": {"input": "x", "tool_choice": NOTHING, "tools": [WEATHER]},
    "an allowed tool that is none": {
        "input": "x",
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [NOTHING]},
        "tools": [WEATHER],
    },
    "background without store": {"input": "x", "background": True, "store": False},
    "more calls than a message has": {"input": [{"role": "assistant", "content": "x"}, *[CALL] * 129]},
    "an id that is none": {"input": "x", "previous_response_id": "a b"},
    "NUL in an id": {"input": "x", "conversation": "\0"},
    "an unknown include": {"input": "x", "include": ["everything"]},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_400(live: Live, name: str, stream: bool) -> None:
    body = {"model": "scripted", **({"stream": True} if stream else {}), **WRONG[name]}
    answer = live.http.post("/v1/responses", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_refusals_say_why(live: Live) -> None:
    texts = {
        "no tool calls": "Input should be greater than or equal to 1",
        "a tool of the server": "'web_search' are not supported",
        "a picture": "'input_image'",
        "an unknown item": "'web_search_call'",
        "more calls than a message has": "128 calls may follow one another",
    }
    for name, text in texts.items():
        answer = live.http.post("/v1/responses", json={"model": "scripted", **WRONG[name]})
        assert text in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["", "/input_items"])
def test_what_is_not_there_is_404(live: Live, path: str) -> None:
    answer = live.http.get(f"/v1/responses/resp_x{path}")
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        "Response 'resp_x' not found. Use 'client.responses.list()' to list available Responses.",
    )
    for method, rest in (("DELETE", ""), ("POST", "/cancel")):
        assert live.http.request(method, f"/v1/responses/resp_x{rest}").status_code == 404
    for more in ({"previous_response_id": "resp_x"}, {"conversation": "conv_x"}, {"model": "x"}):
        body = {"model": "scripted", "input": "x", **more}
        assert live.http.post("/v1/responses", json=body).status_code == 404
    gone = live.http.post(
        "/v1/responses", json={"model": "scripted", "input": "x", "previous_response_id": "r"}
    )
    error = gone.json()["error"]
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")
    assert live.http.get("/v1/responses/resp_x?stream=true").status_code == 404
