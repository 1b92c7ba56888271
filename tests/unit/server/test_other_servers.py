"""What clients send to every server that speaks OpenAI's or Anthropic's language, whatever it can do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.unit.server.live import Live
from tests.unit.server.test_responses import prompt_of
from tests.unit.server.test_tools import WEATHER

from puna import Llama

CACHE: Any = {"type": "ephemeral"}
CALL: Any = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
RESULT: Any = {"role": "tool", "tool_call_id": "c", "content": "rain"}
CHAT: Any = {"model": "scripted", "messages": [{"role": "user", "content": "hum"}]}
RESPONSE: Any = {"model": "scripted", "input": [{"role": "user", "content": "hum"}]}
MESSAGES: Any = {**CHAT, "max_tokens": 16}
TOOL: Any = {"name": "weather", "input_schema": {"type": "object"}}
FUNCTION: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
SENT_CALL: Any = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}


@pytest.mark.parametrize(
    ("path", "body", "more"),
    [
        ("chat/completions", CHAT, {"reasoning_effort": "low", "verbosity": "low"}),
        ("chat/completions", CHAT, {"prompt_cache_retention": "24h", "prompt_cache_options": {"a": 1}}),
        ("chat/completions", CHAT, {"stream": True, "stream_options": {"include_usage": None}}),
        *(
            ("chat/completions", CHAT, {name: None})
            for name in (
                "audio",
                "functions",
                "function_call",
                "moderation",
                "prediction",
                "web_search_options",
            )
        ),
        ("completions", {"model": "scripted", "prompt": "hum"}, {"suffix": ""}),
        ("responses", RESPONSE, {"context_management": None, "moderation": None}),
        ("responses", RESPONSE, {"prompt_cache_options": {"a": 1}}),
        ("responses", RESPONSE, {"tools": [{**FUNCTION, "defer_loading": None}]}),
        ("messages", MESSAGES, {"cache_control": CACHE, "context_management": None}),
        ("messages", MESSAGES, {"inference_geo": "eu"}),
        (
            "messages",
            MESSAGES,
            {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        ),
        (
            "messages",
            MESSAGES,
            {
                "tools": [
                    {**TOOL, "eager_input_streaming": True, "defer_loading": False, "input_examples": []}
                ]
            },
        ),
    ],
)
def test_fields_that_ask_for_nothing_here_are_taken(
    live: Live, path: str, body: dict[str, Any], more: dict[str, Any]
) -> None:
    answer = live.http.post(f"/v1/{path}", json={**body, **more})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (
            "chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type: Input should be 'text', got 'image_url'",
        ),
        (
            "messages",
            {**MESSAGES, "messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0]: must be of type 'text', 'tool_use', 'tool_result', 'thinking', "
            "'redacted_thinking', got 'image'",
        ),
        ("responses", {**RESPONSE, "input": [{}]}, "input[0]: must have a `type`"),
    ],
)
def test_a_part_of_another_type_is_told_what_may_be(
    live: Live, path: str, body: dict[str, Any], said: str
) -> None:
    answer = live.http.post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)


@pytest.mark.parametrize(
    ("path", "body", "name", "value", "reason"),
    [
        ("chat/completions", CHAT, "functions", [{"name": "f"}], "given as `tools`"),
        ("chat/completions", CHAT, "function_call", "auto", "said by `tool_choice`"),
        ("chat/completions", CHAT, "audio", {"voice": "x"}, "no answer has sound"),
        ("completions", {"model": "scripted", "prompt": "hum"}, "suffix", "x", "do not fill in"),
        ("responses", RESPONSE, "context_management", [{"type": "compaction"}], "not managed"),
        (
            "messages",
            MESSAGES,
            "context_management",
            {"edits": [{"type": "clear_tool_uses_20250919"}]},
            "should be 'clear_thinking_20251015', got 'clear_tool_uses_20250919'",
        ),
    ],
)
def test_what_would_change_the_answer_is_refused_with_its_reason(
    live: Live, path: str, body: dict[str, Any], name: str, value: object, reason: str
) -> None:
    answer = live.http.post(f"/v1/{path}", json={**body, name: value})
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "said", "shown"),
    [
        (
            "chat/completions",
            CHAT,
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not"}]},
            "I will not",
        ),
        (
            "chat/completions",
            CHAT,
            {"role": "user", "content": [{"type": "text", "text": "part", "cache_control": CACHE}]},
            "part",
        ),
        (
            "chat/completions",
            CHAT,
            {"role": "assistant", "content": "yes", "reasoning_content": "hm", "id": "m"},
            "yes",
        ),
        ("responses", RESPONSE, {"role": "assistant", "content": "yes", "id": "msg_1"}, "yes"),
        ("responses", RESPONSE, {**SENT_CALL, "namespace": None, "created_by": "x"}, "weather"),
    ],
)
def test_messages_of_other_servers_are_taken(
    live: Live, scripted: Llama, path: str, body: dict[str, Any], said: dict[str, Any], shown: str
) -> None:
    name = "input" if path == "responses" else "messages"
    asked = {**body, name: [*body[name], said, *body[name]]}
    answer = live.http.post(f"/v1/{path}", json=asked)
    assert answer.status_code == 200, answer.text
    assert shown in prompt_of(scripted)


@pytest.mark.parametrize("arguments", ["{bad", "[1]", "null", '"text"'])
def test_a_call_that_went_wrong_can_be_sent_back(live: Live, scripted: Llama, arguments: str) -> None:
    call = copy.deepcopy(CALL)
    call["function"]["arguments"] = arguments
    earlier = [{"role": "assistant", "tool_calls": [call]}, RESULT]
    answer = live.http.post("/v1/chat/completions", json={**CHAT, "messages": [*CHAT["messages"], *earlier]})
    assert answer.status_code == 200, answer.text
    assert arguments in prompt_of(scripted).replace("\\", "")


def test_the_last_message_is_gone_on_with(live: Live, scripted: Llama) -> None:
    begun = [*CHAT["messages"], {"role": "assistant", "content": "Sure: bl"}]
    body = {**CHAT, "messages": begun, "continue_final_message": True}
    assert live.http.post("/v1/chat/completions", json=body).status_code == 200
    assert prompt_of(scripted).endswith("Sure: bl")
    refused = live.http.post("/v1/chat/completions", json={**body, "messages": CHAT["messages"]})
    assert (refused.status_code, "must be the assistant's" in refused.text) == (400, True)


def test_tools_that_are_not_allowed_are_not_told(live: Live, scripted: Llama) -> None:
    other = copy.deepcopy(WEATHER)
    other["function"]["name"] = "tides"
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]}
    body = {**CHAT, "messages": [{"role": "user", "content": "one call"}], "tools": [WEATHER, other]}
    body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed}
    (choice,) = live.http.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert "tides" not in prompt_of(scripted)
    allowed["tools"][0]["function"]["name"] = "moon"  # type: ignore[index]
    refused = live.http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, "'moon', which is no tool" in refused.text) == (400, True)
