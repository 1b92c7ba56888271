"""Calls through Anthropic's own client, in one piece and streamed, errors included."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from tests.clients.conftest import MODEL

HUM: Any = [{"role": "user", "content": "Why do llamas hum?"}]
WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
GREEDY: Any = {"temperature": 0}  # the client has no field for it any more
CALLS: dict[str, Any] = {
    "plain": {},
    "system": {"system": "Be brief."},
    "system blocks": {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    },
    "blocks": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hum."}]}]},
    "several turns": {"messages": [*HUM, {"role": "assistant", "content": "Why not?"}, *HUM]},
    "sampling": {"extra_body": {"temperature": 0, "top_p": 0.5, "top_k": 5}},
    "stop sequences": {"stop_sequences": ["a", "e"]},
    "a tool": {"tools": [WEATHER]},
    "no tool": {"tools": [WEATHER], "tool_choice": {"type": "none"}},
    "a result": {
        "tools": [WEATHER],
        "messages": [
            *HUM,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c", "name": "weather", "input": {}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "warm"}]},
        ],
    },
    "thinking": {"thinking": {"type": "disabled"}, "metadata": {"user_id": "ada"}},
}


def told(block: Any) -> Any:
    """What a block says, whatever class the client made of it."""
    return block.text if block.type == "text" else (block.name, block.input)


@pytest.mark.parametrize("name", CALLS)
def test_messages(claude: anthropic.Anthropic, name: str) -> None:
    given: Any = {"model": MODEL, "max_tokens": 4, "messages": HUM, "extra_body": GREEDY, **CALLS[name]}
    whole = claude.messages.create(**given)
    assert whole.stop_reason in ("end_turn", "max_tokens", "stop_sequence", "tool_use")
    with claude.messages.stream(**given) as stream:
        final = stream.get_final_message()
    assert [told(block) for block in final.content] == [told(block) for block in whole.content]
    assert (final.stop_reason, final.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    usage = whole.usage
    counted = {key: given[key] for key in ("messages", "system", "tools", "tool_choice") if key in given}
    n_prompt = claude.messages.count_tokens(model=MODEL, **counted).input_tokens
    assert n_prompt == usage.input_tokens + (usage.cache_read_input_tokens or 0)


ERRORS: dict[str, Any] = {
    "no limit": {"max_tokens": 0},
    "no messages": {"messages": []},
    "a picture": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a/b"}}]}
        ]
    },
    "too hot": {"extra_body": {"temperature": 2}},
    "a tool of the server": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "a prompt that does not fit": {"messages": [{"role": "user", "content": "hum " * 2000}]},
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(claude: anthropic.Anthropic, name: str) -> None:
    given: Any = {"model": MODEL, "max_tokens": 4, "messages": HUM, **ERRORS[name]}
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError, match="invalid_request_error"):
            claude.messages.create(**given, stream=stream)


def test_what_is_not_there(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        claude.messages.create(model="x", max_tokens=4, messages=HUM)
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        claude.messages.count_tokens(model="x", messages=HUM)
