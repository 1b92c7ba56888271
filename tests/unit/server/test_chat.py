"""Chat completions through the official client of OpenAI, against what the Python API answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.unit.server.conftest import CONTEXT
from tests.unit.server.live import Live

import puna
from puna import Llama
from puna.server.answers.conversation import is_quick
from puna.server.schemas.chat import ChatBody

MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why do llamas hum?"},
]


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def llama(tiny_folder: Path) -> Iterator[Llama]:
    with puna.load(str(tiny_folder), threads=1, context=CONTEXT) as llama:
        yield llama


def test_the_answer_is_the_python_api_s(client: openai.OpenAI, llama: Llama) -> None:
    expected = llama.chat(MESSAGES, seed=5, max_tokens=40).result()
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, seed=5, max_tokens=40)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (expected.text, "length")
    assert choice.message.role == "assistant"
    assert choice.message.tool_calls is None
    assert "tool_calls" not in choice.message.model_fields_set
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens == len(llama.encode_chat(MESSAGES))
    assert (usage.completion_tokens, usage.total_tokens) == (40, usage.prompt_tokens + 40)


def test_a_stream_joins_to_the_whole_answer(client: openai.OpenAI, llama: Llama) -> None:
    expected = llama.chat(MESSAGES, seed=6, max_tokens=30).result()
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            seed=6,
            max_tokens=30,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    ends = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert ends[-1] == "length"
    assert set(ends[:-1]) == {None}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 30
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_without_stream_options_no_chunk_has_usage(live: Live) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 3, "stream": True}
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "usage" not in answer.text


def test_several_choices_have_seeds_of_their_own(client: openai.OpenAI, llama: Llama) -> None:
    expected = [llama.chat(MESSAGES, seed=9 + i, max_tokens=12).result().text for i in range(3)]
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, seed=9, n=3, max_tokens=12)
    assert [choice.message.content for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 36
    assert answer.usage.prompt_tokens == len(llama.encode_chat(MESSAGES))


@pytest.mark.parametrize(("route", "asked"), [("chat/completions", "messages"), ("responses", "input")])
def test_a_line_of_a_stream_has_nothing_that_looks_like_its_end(live: Live, route: str, asked: str) -> None:
    body = {"model": "scripted", asked: [{"role": "user", "content": "odd lines"}], "stream": True}
    with live.http.stream("POST", f"/v1/{route}", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: {")]
    events: list[Any] = [json.loads(line.removeprefix("data: ")) for line in lines]
    deltas = [each["choices"][0]["delta"] if "choices" in each else each.get("delta") for each in events]
    texts = [each if isinstance(each, str) else each.get("content", "") for each in deltas if each]
    assert "".join(texts) == "one\u2028two\x85three\u2029four"


def test_streams_of_several_choices_do_not_mix(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES, seed=9, n=3, max_tokens=12)
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(
        model="tiny", messages=MESSAGES, seed=9, n=3, max_tokens=12, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_log_probabilities_are_the_python_api_s(client: openai.OpenAI, llama: Llama) -> None:
    expected = llama.chat(MESSAGES, seed=2, max_tokens=6, logprobs=2).result()
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, seed=2, max_tokens=6, logprobs=True, top_logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert [entry.logprob for entry in found.content] == [entry.logprob for entry in expected.logprobs]
    assert [entry.bytes for entry in found.content] == [
        list(llama.tokenizer.token_bytes(entry.token)) for entry in expected.logprobs
    ]
    tops = [[top.logprob for top in entry.top_logprobs] for entry in found.content]
    assert tops == [[logprob for _, logprob in entry.top] for entry in expected.logprobs]


def test_streamed_log_probabilities_are_the_same(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "seed": 2, "max_tokens": 6, "logprobs": True}
    whole = client.chat.completions.create(**asked)
    found = [
        entry
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert whole.choices[0].logprobs is not None
    assert found == whole.choices[0].logprobs.content


def test_bias_and_stop_are_honoured(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, logit_bias={str(ord("z")): 100}, max_tokens=5, temperature=0
    )
    # Byte-level ids of this vocabulary are in the order of its alphabet, not of the bytes.
    text = answer.choices[0].message.content
    assert text
    assert set(text) == {text[0]}
    stopped = client.chat.completions.create(
        model="tiny", messages=MESSAGES, logit_bias={str(ord("z")): 100}, temperature=0, stop=[text[0] * 3]
    )
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("", "stop")


def test_max_completion_tokens_goes_before_max_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=9, max_completion_tokens=4, seed=1
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_a_prompt_seen_before_is_told_as_cached(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "a beginning that is long enough to fill some blocks" * 2}]
    answers = [
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=1).usage for _ in range(2)
    ]
    cached = [a.prompt_tokens_details.cached_tokens for a in answers if a and a.prompt_tokens_details]
    assert cached[0] == 0
    assert cached[1] is not None
    assert cached[1] > 64


def test_content_parts_are_read(client: openai.OpenAI) -> None:
    parts: Any = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Why do "}, {"type": "text", "text": "llamas hum?"}],
        }
    ]
    whole: Any = [{"role": "user", "content": "Why do llamas hum?"}]
    answers = [
        client.chat.completions.create(model="tiny", messages=m, seed=3, max_tokens=8) for m in (parts, whole)
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert missing.value.body == {
        "message": "Model 'gpt-9' not found. Use 'client.models.list()' to list available Models.",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }
    with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=3)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="tokens and at most 511 fit") as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 600}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="tokens and at most 511 fit"):
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x" * 600}], stream=True
        )


def test_the_alias_answers_alike(live: Live) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "seed": 1, "max_tokens": 5}
    texts = [
        live.http.post(f"{prefix}/chat/completions", json=body).json()["choices"]
        for prefix in ("/v1", "/v1/openai/v1")
    ]
    assert texts[0] == texts[1]


async def test_the_asynchronous_client_gets_the_same(live: Live, client: openai.OpenAI) -> None:
    expected = client.chat.completions.create(model="tiny", messages=MESSAGES, seed=4, max_tokens=10)
    async with openai.AsyncOpenAI(base_url=live.url, api_key="none") as other:
        answer = await other.chat.completions.create(model="tiny", messages=MESSAGES, seed=4, max_tokens=10)
    assert answer.choices[0].message == expected.choices[0].message


@pytest.mark.parametrize(
    "long",
    [
        {"content": "x" * 5000},
        {"refusal": "x" * 5000},
        {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "x" * 5000}}]},
    ],
)
def test_all_that_a_message_has_counts_as_its_length(long: dict[str, Any]) -> None:
    said: Any = [{"role": "user", "content": "hum"}]
    assert is_quick(ChatBody(model="tiny", messages=said))
    assert not is_quick(ChatBody(model="tiny", messages=[*said, {"role": "assistant", **long}]))
