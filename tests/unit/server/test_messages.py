"""Anthropic's messages, through its own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter
from tests.unit.server.live import Live, running
from tests.unit.server.scripted import ScriptedEngine

from puna import Llama
from puna.server.door.keys import hashed, new_key
from puna.server.hosting.hosted import HostedModel

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[anthropic.Anthropic]:
    base = live.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as client:
        yield client


def ask(client: anthropic.Anthropic, said: Any, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": said}] if isinstance(said, str) else said
    return client.messages.create(model="scripted", messages=messages, max_tokens=50, **more)


def prompt_of(scripted: Llama) -> str:
    engine = scripted.engine
    assert isinstance(engine, ScriptedEngine)
    return scripted.tokenizer.decode(engine.prompts[-1], show_special=True)


def streamed(live: Live, said: str, **more: Any) -> list[dict[str, Any]]:
    body = {"model": "scripted", "max_tokens": 50, "messages": [{"role": "user", "content": said}], **more}
    text = live.http.post("/v1/messages", json={**body, "stream": True}).text
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] != "ping":
            EVENTS.validate_python(event)
        events.append(event)
    return events


def test_an_answer_that_was_begun_is_gone_on_with(client: anthropic.Anthropic, scripted: Llama) -> None:
    begun = [{"role": "user", "content": "a colour"}, {"role": "assistant", "content": "Sure: bl"}]
    ask(client, begun)
    assert prompt_of(scripted).endswith("Sure: bl")
    n_open = client.messages.count_tokens(model="scripted", messages=begun).input_tokens  # type: ignore[arg-type]
    assert n_open == len(scripted.engine.prompts[-1])  # type: ignore[attr-defined]
    form: Any = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    with pytest.raises(anthropic.BadRequestError, match="cannot be held to a form"):
        ask(client, begun, output_config=form)


def test_models_are_told_as_anthropic_tells_them(client: anthropic.Anthropic) -> None:
    found = {model.id: model for model in client.models.list()}
    assert found["scripted"].display_name == "scripted"
    assert found["scripted"].created_at.year > 2000
    assert client.models.retrieve("scripted").created_at == found["scripted"].created_at


def test_a_message_is_answered(client: anthropic.Anthropic) -> None:
    answer = ask(client, "x")
    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "scripted")
    (block,) = answer.content
    assert (block.type, block.text) == ("text", "hum")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens > 0
    counted = client.messages.count_tokens(model="scripted", messages=[{"role": "user", "content": "x"}])
    assert counted.input_tokens == answer.usage.input_tokens


def test_system_blocks_stand_in_front(client: anthropic.Anthropic, scripted: Llama) -> None:
    system: Any = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Two."},
    ]
    ask(client, [{"role": "user", "content": [{"type": "text", "text": "Three."}]}], system=system)
    prompt = prompt_of(scripted)
    assert prompt.index("One.\n\nTwo.") < prompt.index("Three.")
    ask(client, "Three.", system="One.")
    assert prompt_of(scripted).index("One.") < prompt_of(scripted).index("Three.")


def test_a_call_is_a_block(client: anthropic.Anthropic) -> None:
    answer = ask(client, "talk and call", tools=[WEATHER])
    assert answer.stop_reason == "tool_use"
    text, call = answer.content
    assert text.text.strip() == "Let me look."
    assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "Cusco"})
    assert call.id.startswith("toolu_")
    two = ask(client, "two calls", tools=[WEATHER]).content
    assert [block.input["city"] for block in two] == ["Cusco", "Puno"]
    choice: Any = {"type": "auto", "disable_parallel_tool_use": True}
    assert len(ask(client, "two calls", tools=[WEATHER], tool_choice=choice).content) == 1


def test_what_is_no_call_is_text(client: anthropic.Anthropic, scripted: Llama) -> None:
    said = scripted.engine._script["undeclared"]  # type: ignore[attr-defined]
    (block,) = ask(client, "undeclared", tools=[WEATHER]).content
    assert block.text == said
    (block,) = ask(client, "one call", tools=[WEATHER], tool_choice={"type": "none"}).content
    assert block.type == "text"


def test_what_must_be_called_is_in_the_prompt(client: anthropic.Anthropic, scripted: Llama) -> None:
    ask(client, "one call", tools=[WEATHER], tool_choice={"type": "any"})
    assert "You MUST use one of the provided functions" in prompt_of(scripted)
    ask(client, "one call", tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"})
    assert "You MUST use the tool `weather`" in prompt_of(scripted)


def test_results_go_back_to_the_model(client: anthropic.Anthropic, scripted: Llama) -> None:
    call = ask(client, "one call", tools=[WEATHER])
    result: Any = {"type": "tool_result", "tool_use_id": call.content[0].id}
    for content, shown in (
        ("warm", "warm"),
        ([{"type": "text", "text": "warm"}], "warm"),
        (None, ""),
    ):
        said: Any = [
            {"role": "user", "content": "one call"},
            {"role": "assistant", "content": call.content},
            {
                "role": "user",
                "content": [{**result, "content": content}, {"type": "text", "text": "And now?"}],
            },
        ]
        ask(client, said, tools=[WEATHER])
        prompt = prompt_of(scripted)
        assert f"ipython<|end_header_id|>\n\n{shown}<|eot_id|>" in prompt
        assert prompt.rindex("ipython") < prompt.index("And now?")
    said[2]["content"] = [{**result, "content": "no such city", "is_error": True}]
    ask(client, said, tools=[WEATHER])
    assert "Error: no such city" in prompt_of(scripted)


def test_a_stop_sequence_is_told(client: anthropic.Anthropic, live: Live) -> None:
    for tools in ([WEATHER], anthropic.omit):
        answer = ask(client, "stop here", stop_sequences=["nothing", "END"], tools=tools)
        assert answer.content[0].text == "before "
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")
    delta = streamed(live, "stop here", stop_sequences=["END"])[-2]["delta"]
    assert delta == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert ask(client, "x", stop_sequences=["END"]).stop_reason == "end_turn"


def test_an_answer_that_is_cut_says_so(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        model="tiny",
        messages=[{"role": "user", "content": "hum"}],
        max_tokens=3,
        extra_body={"temperature": 0},
    )
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


def test_events_of_a_text_come_in_order(live: Live) -> None:
    events = streamed(live, "x")
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event["delta"]["text"] for event in events[3:-3]) == "hum"
    start, end = events[0]["message"], events[-2]
    assert (start["content"], start["stop_reason"]) == ([], None)
    assert start["usage"]["input_tokens"] == end["usage"]["input_tokens"] > 0
    assert end["usage"]["output_tokens"] > 0


def test_events_of_calls_come_in_order(live: Live, client: anthropic.Anthropic) -> None:
    events = streamed(live, "talk and call", tools=[WEATHER])
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [event["content_block"]["type"] for event in starts] == ["text", "tool_use"]
    assert [event["index"] for event in starts] == [0, 1]
    parts = [
        event["delta"]["partial_json"] for event in events if event.get("index") == 1 and "delta" in event
    ]
    assert len(parts) > 1
    assert json.loads("".join(parts)) == {"city": "Cusco"}
    with client.messages.stream(
        model="scripted", max_tokens=50, tools=[WEATHER], messages=[{"role": "user", "content": "two calls"}]
    ) as stream:
        final = stream.get_final_message()
    assert [block.input["city"] for block in final.content] == ["Cusco", "Puno"]  # type: ignore[union-attr,index]
    assert final.stop_reason == "tool_use"


def test_what_other_models_do_is_tolerated(client: anthropic.Anthropic) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said: Any = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "y"}]},
        {"role": "user", "content": "x"},
    ]
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    metadata: Any = {"user_id": "ada"}
    assert ask(client, said, thinking=thinking, metadata=metadata, service_tier="auto").content


SAID = [{"role": "user", "content": "x"}]
WRONG: dict[str, Any] = {
    "no limit": {"messages": SAID},
    "no messages": {"max_tokens": 5, "messages": []},
    "an unknown role": {"max_tokens": 5, "messages": [{"role": "system", "content": "x"}]},
    "a picture": {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}]},
    "a document": {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "document"}]}]},
    "a tool of the server": {
        "max_tokens": 5, "messages": SAID, "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    },
    "too hot": {"max_tokens": 5, "messages": SAID, "temperature": 1.5},
    "an unknown field": {"max_tokens": 5, "messages": SAID, "colour": "red"},
    "a tool that is none": {
        "max_tokens": 5, "messages": SAID, "tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"},
    },
    "too long": {"max_tokens": 5, "messages": [{"role": "user", "content": "x" * 30_000}]},
    "more messages with the system's": {"max_tokens": 5, "messages": SAID * 4096, "system": "x"},
    "more results than messages": {
        "max_tokens": 5, "messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "x"} for _ in range(1024)
        ]} for _ in range(5)],
    },
    "more calls than a message may have": {
        "max_tokens": 5, "messages": [*SAID, {"role": "assistant", "content": [
            {"type": "tool_use", "id": str(i), "name": "weather", "input": {}} for i in range(129)
        ]}],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_an_error_in_anthropic_s_shape(live: Live, name: str, stream: bool) -> None:
    body = {"model": "scripted", **WRONG[name], **({"stream": True} if stream else {})}
    model = {"model": "tiny"} if name == "too long" else {}
    answer = live.http.post("/v1/messages", json={**body, **model})
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert set(answer.json()["error"]) == {"type", "message"}


def test_every_error_has_that_shape(
    client: anthropic.Anthropic, live: Live, scripted_model: HostedModel
) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        client.messages.create(model="x", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    for method, path in (("GET", "/v1/messages"), ("POST", "/v1/messages/nothing")):
        assert live.http.request(method, path).json()["type"] == "error"
    for more in ({"content": b"{"}, {"content": b"{}", "headers": {"host": "evil.example"}}):
        assert live.http.post("/v1/messages", **more).json()["type"] == "error"  # type: ignore[arg-type]
    key = new_key()
    scripted_model.loaded = None
    with running([scripted_model], keys=(hashed("ada", key),), timeout_s=0.3) as other:
        base = other.url.removesuffix("/v1")
        with anthropic.Anthropic(base_url=base, api_key=key, max_retries=0) as right:
            assert ask(right, "x").content[0].text == "hum"
            with pytest.raises(anthropic.APIStatusError, match="timeout_error"):
                ask(right, "fall silent")
            with (
                pytest.raises(anthropic.APIError, match="took longer"),
                right.messages.stream(
                    model="scripted", max_tokens=9, messages=[{"role": "user", "content": "fall silent"}]
                ) as stream,
            ):
                stream.get_final_message()  # fmt: skip
        with (
            anthropic.Anthropic(base_url=base, api_key="wrong", max_retries=0) as wrong,
            pytest.raises(anthropic.AuthenticationError),
        ):
            ask(wrong, "x")
