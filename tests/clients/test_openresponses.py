"""The cases of the Open Responses compliance suite, written after its published description.

The suite asks for six answers and looks at their form: every field of a response, every event of a stream.
One of them has a picture in it, which Puna refuses for now.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from ogx_client.types import ResponseObject, ResponseObjectStream
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.clients.conftest import MODEL
from tests.unit.server.live import Live
from tests.unit.server.test_responses import REQUIRED

# OpenAI's own types, and Llama Stack's, which need more.
EVENTS: list[TypeAdapter[Any]] = [TypeAdapter(ResponseStreamEvent), TypeAdapter(ResponseObjectStream)]


def message(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "A city and a state"}},
        "required": ["location"],
    },
}
CASES: dict[str, Any] = {
    "basic text": {"input": [message("user", "Greet me in three words.")]},
    "system prompt": {"input": [message("system", "You are a pirate."), message("user", "Greet me.")]},
    "tool calling": {"input": [message("user", "How is the weather in Lima?")], "tools": [WEATHER]},
    "several turns": {
        "input": [
            message("user", "My name is Ada."),
            message("assistant", "Hello Ada."),
            message("user", "What is my name?"),
        ]
    },
}


def check(response: dict[str, Any]) -> None:
    assert set(REQUIRED) <= set(response)
    Response.model_validate(response)
    ResponseObject.model_validate(response)
    assert response["object"] == "response"
    assert response["status"] in ("completed", "incomplete")
    assert response["output"]
    for item in response["output"]:
        assert item["type"] in ("message", "function_call")
        assert item["id"]
        assert item["status"] in ("completed", "incomplete")
        for part in item.get("content", ()):
            assert set(part) >= {"type", "text", "annotations", "logprobs"}
    assert set(response["usage"]) >= {
        "input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details", "total_tokens",
    }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_response(served: Live, name: str) -> None:
    body = {"model": MODEL, "max_output_tokens": 16, **CASES[name]}
    answer = served.http.post("/v1/responses", json=body)
    assert answer.headers["content-type"] == "application/json"
    check(answer.json())


@pytest.mark.parametrize("name", CASES)
def test_a_stream(served: Live, name: str) -> None:
    body = {"model": MODEL, "max_output_tokens": 16, "stream": True, **CASES[name]}
    answer = served.http.post("/v1/responses", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *blocks, done = [block for block in answer.text.split("\n\n") if block]
    assert done == "data: [DONE]"
    events = []
    for block in blocks:
        first, second = block.split("\n")
        events.append(json.loads(second.removeprefix("data: ")))
        assert first == f"event: {events[-1]['type']}"
        for adapter in EVENTS:
            assert adapter.validate_python(events[-1]).type == events[-1]["type"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    check(events[-1]["response"])
    opened = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    closed = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert opened == closed == [item["id"] for item in events[-1]["response"]["output"]]


def test_a_picture_is_refused(served: Live) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    asked = [{"type": "input_text", "text": "What is in this picture?"}, picture]
    body = {"model": MODEL, "input": [{"type": "message", "role": "user", "content": asked}]}
    answer = served.http.post("/v1/responses", json=body)
    assert answer.status_code == 400
    assert "'input_image'" in answer.json()["error"]["message"]
