"""Calls through OpenAI's own client: every route, in one piece and streamed, errors included."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from tests.clients.conftest import MODEL, lenient

HUM: Any = [{"role": "user", "content": "Why do llamas hum?"}]
SHORT: Any = {"model": MODEL, "max_completion_tokens": 4, "seed": 1}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL: Any = {"type": "function", "function": WEATHER}
CALLED: Any = [
    *HUM,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Cusco"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c", "content": "21 degrees"},
]

CHATS: dict[str, Any] = {
    "plain": {},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, *HUM]},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, *HUM]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hum."}]}]},
    "several turns": {"messages": [*HUM, {"role": "assistant", "content": "Why not?"}, *HUM]},
    "max_tokens": {"max_tokens": 3},
    "greedy": {"temperature": 0},
    "top_p": {"temperature": 1, "top_p": 0.5},
    "two choices": {"n": 2},
    "a stop text": {"stop": "a", "max_completion_tokens": 12},
    "stop texts": {"stop": ["a", "e"], "max_completion_tokens": 12},
    "log-probabilities": {"logprobs": True},
    "alternatives": {"logprobs": True, "top_logprobs": 3},
    "a bias": {"logit_bias": {"30": 5}},
    "penalties": {"frequency_penalty": 1, "presence_penalty": -1},
    "a tool": {"tools": [TOOL]},
    "no tool": {"tools": [TOOL], "tool_choice": "none"},
    "one call at a time": {"tools": [TOOL], "parallel_tool_calls": False},
    "a result": {"messages": CALLED, "tools": [TOOL]},
    "text": {"response_format": {"type": "text"}},
    "notes": {"user": "ada", "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "x"},
    "Puna's own": {"extra_body": {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}},
}


@pytest.mark.parametrize("name", CHATS)
def test_chat(gpt: openai.OpenAI, name: str) -> None:
    given = {**SHORT, "messages": HUM, **CHATS[name]}
    whole = gpt.chat.completions.create(**given)
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 24
    choices = ["" for _ in whole.choices]
    ends: list[Any] = [None for _ in whole.choices]
    for chunk in gpt.chat.completions.create(**given, stream=True):
        for choice in chunk.choices:
            choices[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert choices == [choice.message.content or "" for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert set(ends) <= {"stop", "length", "tool_calls"}
    if given.get("logprobs"):
        logprobs = whole.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert len(logprobs.content) == whole.usage.completion_tokens
        assert {len(entry.top_logprobs) for entry in logprobs.content} == {given.get("top_logprobs", 0)}


def test_chat_usage_in_a_stream(gpt: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    *_, last = gpt.chat.completions.create(**SHORT, messages=HUM, stream=True, stream_options=options)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 4


def test_chat_cached_tokens(gpt: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "Say it again. " * 20}]
    for _ in range(2):
        usage = gpt.chat.completions.create(**SHORT, messages=long).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens is not None
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


def test_stored_chat(gpt: openai.OpenAI) -> None:
    made = gpt.chat.completions.create(**SHORT, messages=HUM, store=True, metadata={"a": "b"})
    assert gpt.chat.completions.retrieve(made.id).choices == made.choices
    assert made.id in [each.id for each in gpt.chat.completions.list()]
    assert gpt.chat.completions.update(made.id, metadata={"c": "d"}).metadata == {"c": "d"}
    (message,) = lenient(gpt).chat.completions.messages.list(made.id)
    assert message.content == HUM[0]["content"]
    assert gpt.chat.completions.delete(made.id).deleted


COMPLETIONS: dict[str, Any] = {
    "a text": {"prompt": "one, two,"},
    "several texts": {"prompt": ["one, two,", "A llama is"]},
    "ids": {"prompt": [100, 200, 300]},
    "echo": {"prompt": "one, two,", "echo": True},
    "log-probabilities": {"prompt": "one, two,", "logprobs": 2},
    "echo with log-probabilities": {"prompt": "one, two,", "logprobs": 0, "echo": True},
    "two choices": {"prompt": "one, two,", "n": 2},
    "a stop text": {"prompt": "one, two,", "stop": [","]},
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions(gpt: openai.OpenAI, name: str) -> None:
    given: Any = {"model": MODEL, "max_tokens": 4, "seed": 1, **COMPLETIONS[name]}
    client = lenient(gpt)
    whole = client.completions.create(**given)
    texts = ["" for _ in whole.choices]
    for chunk in client.completions.create(**given, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]


def test_embeddings(gpt: openai.OpenAI) -> None:
    for given in ("hum", ["hum", "spit"], [100, 200], [[100], [200]]):
        found = lenient(gpt).embeddings.create(model=MODEL, input=given)
        assert len(found.data[0].embedding) == 576
        assert sum(x * x for x in found.data[0].embedding) == pytest.approx(1, abs=1e-5)


def test_models(gpt: openai.OpenAI) -> None:
    assert [model.id for model in gpt.models.list()] == [MODEL]
    assert gpt.models.retrieve(MODEL).id == MODEL


FUNCTION: Any = {"type": "function", "strict": False, **WEATHER}
RESPONSES: dict[str, Any] = {
    "a text": {},
    "instructions": {"instructions": "Be brief."},
    "messages": {"input": [{"role": "developer", "content": "Be brief."}, *HUM]},
    "parts": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hum."}]}]},
    "an answer": {"input": [*HUM, {"role": "assistant", "content": "Why not?"}, *HUM]},
    "a tool": {"tools": [FUNCTION]},
    "no tool": {"tools": [FUNCTION], "tool_choice": "none"},
    "a result": {
        "tools": [FUNCTION],
        "input": [
            *HUM,
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city": "Cusco"}'},
            {"type": "function_call_output", "call_id": "c", "output": "21 degrees"},
        ],
    },
    "sampling": {"temperature": 0, "top_p": 0.5},
    "log-probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "reasoning": {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]},
    "truncation": {"truncation": "auto"},
    "not kept": {"store": False},
    "text": {"text": {"format": {"type": "text"}}},
    "notes": {"metadata": {"a": "b"}, "user": "ada", "prompt_cache_key": "k"},
}


@pytest.mark.parametrize("name", RESPONSES)
def test_responses(gpt: openai.OpenAI, name: str) -> None:
    seeded = {"extra_body": {"seed": 1}}
    given: Any = {"model": MODEL, "input": "Hum.", "max_output_tokens": 16, **seeded, **RESPONSES[name]}
    whole = gpt.responses.create(**given)
    assert whole.status in ("completed", "incomplete")
    text, last = "", None
    for number, event in enumerate(gpt.responses.create(**given, stream=True)):
        assert event.sequence_number == number
        last = event
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == whole.output_text
    assert last is not None
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.usage.output_tokens == whole.usage.output_tokens  # type: ignore[union-attr]


def test_responses_that_are_kept(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model=MODEL, input="Hum.", max_output_tokens=16)
    assert gpt.responses.retrieve(first.id) == first
    given: Any = first.output
    second = gpt.responses.create(
        model=MODEL, input="Again.", max_output_tokens=16, previous_response_id=first.id
    )
    assert len(list(gpt.responses.input_items.list(second.id))) == 2 + len(first.output)
    third = gpt.responses.create(model=MODEL, input=[*HUM, *given, *HUM], max_output_tokens=16)
    assert third.output_text is not None
    gpt.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(first.id)


def test_responses_in_the_background(gpt: openai.OpenAI) -> None:
    begun = gpt.responses.create(model=MODEL, input="Hum.", max_output_tokens=16, background=True)
    assert begun.status == "queued"
    while (found := gpt.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
        pass
    assert found.output_text
    long = gpt.responses.create(model=MODEL, input="Count to a thousand, in words.", background=True)
    assert gpt.responses.cancel(long.id).status == "cancelled"


def test_responses_in_the_background_that_are_streamed(gpt: openai.OpenAI) -> None:
    begin: Any = {"model": MODEL, "input": "Hum.", "max_output_tokens": 16, "background": True}
    with gpt.responses.create(**begin, stream=True) as stream:
        first = next(stream)
    rest = list(gpt.responses.retrieve(first.response.id, stream=True, starting_after=first.sequence_number))
    assert (first.type, rest[0].type) == ("response.created", "response.queued")
    assert rest[-1].type in ("response.completed", "response.incomplete")
    assert gpt.responses.retrieve(first.response.id) == rest[-1].response


def test_conversations(gpt: openai.OpenAI) -> None:
    conversation = gpt.conversations.create(items=HUM, metadata={"a": "b"})
    assert gpt.conversations.retrieve(conversation.id).metadata == {"a": "b"}
    gpt.conversations.update(conversation.id, metadata={"c": "d"})
    gpt.responses.create(model=MODEL, input="Hum.", max_output_tokens=16, conversation=conversation.id)
    added = gpt.conversations.items.create(conversation.id, items=HUM).data
    assert added[0].id is not None
    assert gpt.conversations.items.retrieve(added[0].id, conversation_id=conversation.id) == added[0]
    assert len(list(gpt.conversations.items.list(conversation.id))) == 4
    gpt.conversations.items.delete(added[0].id, conversation_id=conversation.id)
    assert gpt.conversations.delete(conversation.id).deleted


CHAT_ERRORS: dict[str, Any] = {
    "no messages": {"messages": []},
    "an unknown role": {"messages": [{"role": "wizard", "content": "x"}]},
    "a picture": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    },
    "too hot": {"temperature": 3},
    "no tokens": {"max_completion_tokens": 0},
    "no choices": {"n": 0},
    "too many choices": {"n": 1000},
    "too many alternatives": {"logprobs": True, "top_logprobs": 30},
    "too many stop texts": {"stop": list("abcdefghijklmnopqrst")},
    "a tool that is none": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
    "a tool without a name": {"tools": [{"type": "function", "function": {}}]},
    "a sound": {"modalities": ["audio"]},
    "a prompt that does not fit": {"messages": [{"role": "user", "content": "hum " * 2000}]},
    "an unknown field": {"extra_body": {"colour": "red"}},
    "too much metadata": {"metadata": {str(i): "" for i in range(17)}},
}


@pytest.mark.parametrize("name", CHAT_ERRORS)
def test_chat_errors(gpt: openai.OpenAI, name: str) -> None:
    for stream in (False, True):
        given: Any = {**SHORT, "messages": HUM, **CHAT_ERRORS[name], "stream": stream}
        with pytest.raises(openai.BadRequestError) as caught:
            gpt.chat.completions.create(**given)
        assert caught.value.type == "invalid_request_error"


NOT_FOUND: dict[str, Any] = {
    "chat": lambda c: c.chat.completions.create(model="x", messages=HUM),
    "completions": lambda c: c.completions.create(model="x", prompt="x"),
    "embeddings": lambda c: c.embeddings.create(model="x", input="x"),
    "responses": lambda c: c.responses.create(model="x", input="x"),
    "model": lambda c: c.models.retrieve("x"),
    "stored chat": lambda c: c.chat.completions.retrieve("x"),
    "stored chat, messages": lambda c: c.chat.completions.messages.list("x"),
    "stored chat, delete": lambda c: c.chat.completions.delete("x"),
    "stored chat, update": lambda c: c.chat.completions.update("x", metadata={}),
    "response": lambda c: c.responses.retrieve("resp_x"),
    "response, delete": lambda c: c.responses.delete("resp_x"),
    "response, cancel": lambda c: c.responses.cancel("resp_x"),
    "response, input": lambda c: c.responses.input_items.list("resp_x"),
    "response, previous": lambda c: c.responses.create(model=MODEL, input="x", previous_response_id="resp_x"),
    "conversation": lambda c: c.conversations.retrieve("conv_x"),
    "conversation, update": lambda c: c.conversations.update("conv_x", metadata={}),
    "conversation, delete": lambda c: c.conversations.delete("conv_x"),
    "conversation, items": lambda c: c.conversations.items.list("conv_x"),
    "conversation, add": lambda c: c.conversations.items.create("conv_x", items=HUM),
    "conversation, item": lambda c: c.conversations.items.retrieve("x", conversation_id="conv_x"),
    "files": lambda c: c.files.list(),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_not_there(gpt: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError):
        NOT_FOUND[name](gpt)


REFUSED: dict[str, Any] = {
    "suffix": lambda c: c.completions.create(model=MODEL, prompt="x", suffix="y"),
    "best_of": lambda c: c.completions.create(model=MODEL, prompt="x", best_of=3),
    "an empty list": lambda c: c.completions.create(model=MODEL, prompt=[]),
    "ids outside of the vocabulary": lambda c: c.completions.create(model=MODEL, prompt=[10**9]),
    "nothing to embed": lambda c: c.embeddings.create(model=MODEL, input=[]),
    "another size": lambda c: c.embeddings.create(model=MODEL, input="x", dimensions=7),
    "a search": lambda c: c.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}]),
    "files": lambda c: c.responses.create(
        model=MODEL, input="x", tools=[{"type": "file_search", "vector_store_ids": ["v"]}]
    ),
    "both contexts": lambda c: c.responses.create(
        model=MODEL, input="x", previous_response_id="resp_x", conversation="conv_x"
    ),
    "too few tokens": lambda c: c.responses.create(model=MODEL, input="x", max_output_tokens=1),
    "too many items": lambda c: c.conversations.create(items=HUM * 21),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(gpt: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.BadRequestError):
        REFUSED[name](gpt)


def test_a_suffix_is_refused_with_the_reason(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="suffix: Llama models do not fill in"):
        REFUSED["suffix"](gpt)
