"""Conversations that are made short, or cut where they do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.unit.server.live import Live
from tests.unit.server.test_responses import ask, prompt_of

from puna import Llama


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


def test_a_long_conversation_is_made_short(client: openai.OpenAI, scripted: Llama) -> None:
    first = ask(client, "one thing", instructions="Be kind.")
    more: Any = [{"role": "user", "content": "another"}, {"role": "assistant", "content": "fine"}]
    short = client.responses.compact(
        model="scripted", input=more, previous_response_id=first.id, instructions="Be brief."
    )
    prompt = prompt_of(scripted)
    at = [prompt.index(text) for text in ("Be brief.", "one thing", "hum", "another", "fine", "Sum up")]
    assert at == sorted(at)
    assert "Be kind." not in prompt
    given: Any = short.to_dict(warnings=False)["output"]  # its types know no messages of users
    assert [item["type"] for item in given] == ["message", "message", "compaction"]
    assert [item["content"][0]["text"] for item in given[:2]] == ["one thing", "another"]
    assert short.usage.output_tokens > 0
    again = ask(client, [*given, {"role": "user", "content": "go on"}])
    prompt = prompt_of(scripted)
    assert "She asked for three things." in prompt
    assert prompt.index("another") < prompt.index("She asked") < prompt.index("go on")
    kept = client.responses.input_items.list(again.id, order="asc").data
    assert [item.type for item in kept] == ["message", "message", "compaction", "message"]
    ask(client, "and on", previous_response_id=again.id)
    assert "She asked for three things." in prompt_of(scripted)


@pytest.mark.parametrize("content", ["", "x", "puna1.\u00e4", "puna1.///", "puna1.gA=="])
def test_a_summary_of_somebody_else_is_refused(client: openai.OpenAI, content: str) -> None:
    item: Any = {"type": "compaction", "encrypted_content": content}
    with pytest.raises(openai.BadRequestError, match="unchanged"):
        ask(client, [item])


def test_nothing_cannot_be_made_short(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="nothing to respond to"):
        client.responses.compact(model="scripted")
    with pytest.raises(openai.NotFoundError):
        client.responses.compact(model="scripted", previous_response_id="resp_none")


def test_old_messages_are_left_out_on_request(live: Live) -> None:
    items: Any = [{"role": "developer", "content": "Stay."}]
    for i in range(40):
        items.append({"role": "user", "content": f"number {i} and some more words"})
        items.append({"role": "assistant", "content": "yes"})
    items.append({"role": "user", "content": "the last"})
    body = {"model": "tiny", "input": items, "max_output_tokens": 16}
    answer = live.http.post("/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    counted = []
    for kept in (items, items[-5:]):
        answer = live.http.post("/v1/responses", json={**body, "input": kept, "truncation": "auto"})
        assert answer.status_code == 200
        counted.append(answer.json()["usage"]["input_tokens"])
    assert counted[1] < counted[0] <= 512 - 16
    long = {**body, "input": "x" * 600, "truncation": "auto"}
    assert live.http.post("/v1/responses", json=long).status_code == 400
