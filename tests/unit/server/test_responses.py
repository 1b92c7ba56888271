"""Responses: what they answer, what they are made of, and the events of their streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live, running
from tests.unit.server.scripted import ScriptedEngine

from puna import Llama
from puna.errors import StateError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.response_context import fill_in
from puna.server.schemas.responses import PromptRef

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
REQUIRED = (
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model",
    "previous_response_id", "instructions", "output", "error", "tools", "tool_choice", "truncation",
    "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
    "temperature", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background",
    "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
)  # fmt: skip
"""Fields that OpenResponses demands."""


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, given: Any, **more: Any) -> Response:
    response = client.responses.create(model="scripted", input=given, **more)
    assert isinstance(response, Response)
    return response


def prompt_of(scripted: Llama) -> str:
    engine = scripted.engine
    assert isinstance(engine, ScriptedEngine)
    return scripted.tokenizer.decode(engine.prompts[-1], show_special=True)


def streamed(live: Live, given: Any, **more: Any) -> list[dict[str, Any]]:
    """Events of a stream, checked for their form."""
    body = {"model": "scripted", "input": given, "stream": True, **more}
    text = live.http.post("/v1/responses", json=body).text
    *blocks, done = [block for block in text.split("\n\n") if block]
    assert done == "data: [DONE]"
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENTS.validate_python(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_every_field_is_there(live: Live) -> None:
    body = live.http.post("/v1/responses", json={"model": "scripted", "input": "x"}).json()
    assert set(REQUIRED) <= set(body)
    Response.model_validate(body)
    assert body["id"].startswith("resp_")
    assert body["completed_at"] >= body["created_at"]
    (message,) = body["output"]
    assert message["id"].startswith("msg_")
    assert (message["role"], message["status"]) == ("assistant", "completed")
    assert message["content"] == [{"type": "output_text", "text": "hum", "annotations": [], "logprobs": []}]
    usage = body["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_what_is_asked_for_is_told_back(client: openai.OpenAI) -> None:
    more: Any = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.7,
        "max_output_tokens": 20,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "tools": [WEATHER],
        "tool_choice": "none",
        "top_logprobs": 2,
        "truncation": "auto",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "user": "u",
        "include": ["reasoning.encrypted_content"],
    }
    told = ask(client, "x", **more).to_dict()
    for name in set(more) - {"include", "tools"}:
        assert told[name] == more[name]
    assert told["tools"] == [{**WEATHER, "description": None}]


def test_items_become_the_model_s_messages(client: openai.OpenAI, scripted: Llama) -> None:
    items: Any = [
        {"role": "developer", "content": "Two."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Three"}, {"type": "input_text", "text": "."}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Four."}]},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city": "Cusco"}'},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "warm"}]},
    ]
    ask(client, items, instructions="One.", tools=[WEATHER])
    prompt = prompt_of(scripted)
    places = [prompt.index(word) for word in ("One.", "Two.", "Three.", "Four.", '"Cusco"', "warm")]
    assert places == sorted(places)
    assert "ipython<|end_header_id|>\n\nwarm" in prompt


def test_a_call_is_an_item(client: openai.OpenAI) -> None:
    response = ask(client, "two calls", tools=[WEATHER])
    assert [item.type for item in response.output] == ["function_call"] * 2
    calls: Any = response.output
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Cusco", "Puno"]
    assert len({call.call_id for call in calls} | {call.id for call in calls}) == 4
    assert {call.status for call in calls} == {"completed"}
    (only,) = ask(client, "two calls", tools=[WEATHER], parallel_tool_calls=False).output
    assert only.type == "function_call"


def test_an_undeclared_call_is_text(client: openai.OpenAI, scripted: Llama) -> None:
    said = scripted.engine._script["undeclared"]  # type: ignore[attr-defined]
    assert ask(client, "undeclared", tools=[WEATHER]).output_text == said


def test_only_allowed_tools_are_offered(client: openai.OpenAI, scripted: Llama) -> None:
    other = {**WEATHER, "name": "launch"}
    allowed: Any = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "launch"}],
    }
    response = ask(client, "one call", tools=[WEATHER, other], tool_choice=allowed)
    assert response.output[0].type == "message"
    assert '"name": "weather"' not in prompt_of(scripted).split("one call")[0]
    named: Any = {"type": "function", "name": "weather"}
    assert (
        ask(client, "one call", tools=[WEATHER, other], tool_choice=named).output[0].type == "function_call"
    )


def test_events_of_a_text_come_in_order(live: Live) -> None:
    events = streamed(live, "x")
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    text = "".join(event["delta"] for event in events[4:-4])
    last = events[-1]["response"]
    assert text == events[-4]["text"] == last["output"][0]["content"][0]["text"] == "hum"
    assert events[0]["response"]["output"] == []
    assert (events[0]["response"]["status"], last["status"]) == ("in_progress", "completed")
    assert last["usage"]["output_tokens"] > 0
    assert live.http.get(f"/v1/responses/{last['id']}").json() == last  # it is kept before it is told


def test_events_of_calls_come_in_order(live: Live) -> None:
    events = streamed(live, "talk and call", tools=[WEATHER])
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["item"]["type"] for event in added] == ["message", "function_call"]
    assert [event["output_index"] for event in added] == [0, 1]
    deltas = [event for event in events if event["type"] == "response.function_call_arguments.delta"]
    (done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert "".join(event["delta"] for event in deltas) == done["arguments"]
    assert added[1]["item"]["arguments"] == ""
    assert events[-1]["response"]["output"][1]["arguments"] == done["arguments"] == '{"city": "Cusco"}'
    closed = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert closed == [item["id"] for item in events[-1]["response"]["output"]]


def test_log_probabilities_come_with_the_text(live: Live, client: openai.OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    content: Any = ask(client, "x", include=include).output[0]
    assert "".join(entry.token for entry in content.content[0].logprobs) == "hum"
    events = streamed(live, "x", include=include)
    told = [entry for event in events if event["type"].endswith("text.delta") for entry in event["logprobs"]]
    assert told == events[-1]["response"]["output"][0]["content"][0]["logprobs"]


def test_an_answer_that_is_cut_is_incomplete(live: Live) -> None:
    body = {"model": "tiny", "input": "hum", "max_output_tokens": 16, "seed": 1}
    response = live.http.post("/v1/responses", json=body).json()
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert streamed(live, **{**body, "given": body.pop("input")})[-1]["type"] == "response.incomplete"


def test_a_response_goes_on_from_another(client: openai.OpenAI, scripted: Llama) -> None:
    first = ask(client, "My name is Ada.", instructions="Be brief.")
    second = ask(client, "And Bob.", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    prompt = prompt_of(scripted)
    assert prompt.index("My name is Ada.") < prompt.index("hum") < prompt.index("And Bob.")
    assert "Be brief." not in prompt  # instructions are not carried over
    items = client.responses.input_items.list(second.id, order="asc", limit=1)
    texts = [item.content[0].text for item in items]  # type: ignore[union-attr]
    assert texts == ["My name is Ada.", "hum", "And Bob."]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=f"Response '{first.id}' not found"):
        ask(client, "x", previous_response_id=second.id)


def test_a_response_is_part_of_a_conversation(client: openai.OpenAI, scripted: Llama) -> None:
    conversation = client.conversations.create(items=[{"role": "user", "content": "My name is Ada."}])
    response = ask(client, "one call", conversation=conversation.id, tools=[WEATHER])
    assert response.conversation is not None
    assert response.conversation.id == conversation.id
    (call,) = response.output
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "warm"}]
    ask(client, result, conversation={"id": conversation.id}, tools=[WEATHER], store=False)
    items = client.conversations.items.list(conversation.id, order="asc")
    assert [item.type for item in items] == [
        "message", "message", "function_call", "function_call_output", "function_call",
    ]  # fmt: skip
    prompt = prompt_of(scripted)
    assert prompt.index("My name is Ada.") < prompt.index("one call") < prompt.index("warm")


def test_a_response_uses_a_stored_prompt(client: openai.OpenAI, live: Live, scripted: Llama) -> None:
    body = {"prompt": "Speak like {{ who }}.", "variables": ["who"]}
    made = live.http.post("/v1/prompts", json=body).json()
    prompt: Any = {"id": made["prompt_id"], "variables": {"who": "a llama {{ who }}"}}
    response = ask(client, "x", prompt=prompt)
    assert "Speak like a llama {{ who }}." in prompt_of(scripted)
    assert response.prompt is not None
    assert response.prompt.version == "1"
    for wrong, error in (({**prompt, "variables": {}}, 400), ({**prompt, "version": "2"}, 404)):
        answer = live.http.post("/v1/responses", json={"model": "scripted", "input": "x", "prompt": wrong})
        assert answer.status_code == error


def test_what_is_not_to_be_kept_is_not(client: openai.OpenAI) -> None:
    response = ask(client, "x", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_what_cannot_be_kept_does_not_say_that_it_is(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StateError("another process held it")

    monkeypatch.setattr(state.responses, "add", refuse)
    answer = live.http.post("/v1/responses", json={"model": "scripted", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unavailable")
    last = streamed(live, "x")[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == answer.json()["error"]["message"]
    assert last["response"]["store"] is False


def test_responses_are_listed(live: Live, client: openai.OpenAI) -> None:
    made = [ask(client, f"list {i}").id for i in range(3)]
    page = live.http.get("/v1/responses?limit=2").json()
    assert [each["id"] for each in page["data"]] == made[:0:-1]
    assert (page["has_more"], page["last_id"]) == (True, made[1])
    assert page["data"][0]["input"][0]["content"][0]["text"] == "list 2"
    rest = live.http.get(f"/v1/responses?after={made[1]}&limit=1&model=scripted").json()
    assert [each["id"] for each in rest["data"]] == [made[0]]


def test_a_stored_prompt_does_not_grow_without_bound() -> None:
    prompt = PromptRef(id="pmpt_1", variables={"a": "x" * 100_000})
    assert len(fill_in("{{a}}" * 41, prompt)) == 4_100_000
    with pytest.raises(ApiError, match="may have 4194304 characters and has more"):
        fill_in("{{a}}" * 42, prompt)


def test_a_prompt_s_length_is_counted(client: openai.OpenAI) -> None:
    given: Any = {"model": "scripted", "input": "x", "tools": [WEATHER], "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(**given).input_tokens
    usage = client.responses.create(**given).usage
    assert usage is not None
    assert usage.input_tokens == counted


def test_the_only_model_counts_where_none_is_named(live: Live, tiny_folder: Path) -> None:
    path = "/v1/responses/input_tokens"
    with running([hosted(tiny_folder)]) as alone:
        named = alone.http.post(path, json={"input": "hum", "model": "tiny"}).json()
        assert named["input_tokens"] > 0
        for more in ({}, {"model": None}):
            assert alone.http.post(path, json={"input": "hum", **more}).json() == named
    refused = live.http.post(path, json={"input": "hum"})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "model")
    assert "here are 2; send the name of one of `/v1/models`" in error["message"]


def test_items_of_earlier_responses_are_sent_by_their_ids(client: openai.OpenAI, scripted: Llama) -> None:
    first = ask(client, [{"role": "user", "content": "say alpha", "id": "msg_mine"}])
    (said,) = first.output
    named: Any = [{"id": "msg_mine"}, {"type": "item_reference", "id": said.id}]
    ask(client, [*named, {"role": "user", "content": "and now"}])
    prompt = prompt_of(scripted)
    assert prompt.index("say alpha") < prompt.index(first.output_text) < prompt.index("and now")
    made = client.conversations.create(items=named)
    assert [item.id for item in client.conversations.items.list(made.id, order="asc")] == [
        "msg_mine",
        said.id,
    ]
    with pytest.raises(openai.NotFoundError, match="'msg_nobody' not found"):
        ask(client, [{"type": "item_reference", "id": "msg_nobody"}])
    with pytest.raises(openai.BadRequestError, match="named twice"):
        ask(client, [*named, *named])


def test_items_of_conversations_are_sent_by_their_ids(client: openai.OpenAI, scripted: Llama) -> None:
    made = client.conversations.create(items=[{"role": "user", "content": "say alpha"}])
    client.conversations.items.create(made.id, items=[{"role": "user", "content": "say beta"}])
    answer = ask(client, "say gamma", conversation=made.id, store=False)
    items = client.conversations.items.list(made.id, order="asc")
    named: Any = [{"type": "item_reference", "id": item.id} for item in items]
    ask(client, [*named, {"role": "user", "content": "and now"}])
    said = ("say alpha", "say beta", "say gamma", answer.output_text, "and now")
    places = [prompt_of(scripted).index(text) for text in said]
    assert places == sorted(places)


def test_items_are_not_named_to_multiply_them(client: openai.OpenAI) -> None:
    for i in range(5):
        sealed = {"type": "reasoning", "id": f"rs_{i}", "summary": [], "encrypted_content": "e" * 1_000_000}
        ask(client, [sealed, {"role": "user", "content": "hum"}])
    named: Any = [{"id": f"rs_{i}"} for i in range(5)]
    ask(client, [*named[:3], {"role": "user", "content": "hum"}])
    said = client.conversations.create(items=[{**sealed, "id": "rs_said"}])
    for others in (named[3:], [{"id": "rs_said"}, named[3]]):
        with pytest.raises(openai.BadRequestError, match="4194304 characters together and have 5000"):
            ask(client, [*named[:3], *others, {"role": "user", "content": "hum"}])
    client.conversations.delete(said.id)
