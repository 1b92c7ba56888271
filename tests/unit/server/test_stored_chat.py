"""Chat completions that are kept: `store`, and finding them again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.unit.server.live import Live, running
from tests.unit.server.test_tools import WEATHER

from puna.server.door.keys import hashed, new_key
from puna.server.hosting.hosted import HostedModel

STORED: Any = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "store": True}
CALL: Any = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


def test_a_completion_is_kept_where_it_is_asked_for(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**STORED, metadata={"project": "hum"})
    found = client.chat.completions.retrieve(made.id)
    assert found.choices == made.choices
    assert found.usage == made.usage
    assert found.metadata == {"project": "hum"}
    for store in (False, None):
        made = client.chat.completions.create(**{**STORED, "store": store})
        with pytest.raises(openai.NotFoundError, match=f"'{made.id}' not found"):
            client.chat.completions.retrieve(made.id)


def test_a_stream_is_kept_as_it_was_told(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "two calls"}]
    chunks = list(
        client.chat.completions.create(**{**STORED, "messages": messages}, tools=[WEATHER], n=2, stream=True)
    )
    found = client.chat.completions.retrieve(chunks[0].id)
    told = [
        c.id for chunk in chunks for choice in chunk.choices for c in choice.delta.tool_calls or [] if c.id
    ]
    kept = [call.id for choice in found.choices for call in choice.message.tool_calls or []]
    assert sorted(kept) == sorted(told)
    assert len(set(kept)) == 4
    assert found.created == chunks[0].created


def test_completions_are_listed_and_found_by_what_was_noted(client: openai.OpenAI) -> None:
    made = [
        client.chat.completions.create(**STORED, metadata={"list": "a", "n": str(i)}).id for i in range(5)
    ]
    listed = client.chat.completions.list(metadata={"list": "a"}, limit=2)
    assert [each.id for each in listed] == made
    newest = client.chat.completions.list(metadata={"list": "a"}, order="desc", limit=2)
    assert [each.id for each in newest.data] == made[:2:-1]
    assert newest.has_more is True
    assert not client.chat.completions.list(model="other").data
    assert [each.id for each in client.chat.completions.list(metadata={"list": "a", "n": "3"})] == [made[3]]


def test_what_is_noted_can_be_changed(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**STORED, metadata={"a": "b"})
    changed = client.chat.completions.update(made.id, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}
    assert client.chat.completions.update(made.id, metadata=None).metadata == {}


def test_a_completion_is_deleted(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**STORED)
    assert client.chat.completions.delete(made.id).to_dict() == {
        "id": made.id, "object": "chat.completion.deleted", "deleted": True,
    }  # fmt: skip
    for call in (client.chat.completions.delete, client.chat.completions.retrieve):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_messages_are_listed(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "warm"},
    ]  # fmt: skip
    made = client.chat.completions.create(**{**STORED, "messages": messages})
    found = list(client.chat.completions.messages.list(made.id, limit=2))
    assert [each.id for each in found] == [f"{made.id}-{i}" for i in range(4)]
    assert [each.content for each in found] == ["Be brief.", None, None, "warm"]
    assert found[1].content_parts is not None
    assert found[1].content_parts[0].to_dict() == {"type": "text", "text": "x"}
    with pytest.raises(openai.BadRequestError, match="`after`"):
        client.chat.completions.messages.list(made.id, after="nothing")


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "?limit=0", {}),
        ("GET", "?limit=101", {}),
        ("GET", "?order=up", {}),
        ("GET", "?after=%00", {}),
        ("GET", "?model=%00", {}),
        ("GET", "?metadata[a]=%00", {}),
        ("POST", "/x", {"json": {}}),
        ("POST", "/x", {"json": {"metadata": {"a": 1}}}),
        ("POST", "/x", {"json": {"metadata": {"a": "\0"}}}),
        ("POST", "/x", {"json": {"metadata": {"a" * 65: ""}}}),
        ("POST", "/x", {"json": {"metadata": {str(i): "" for i in range(17)}}}),
    ],
)
def test_a_wrong_request_is_400(live: Live, method: str, path: str, more: Any) -> None:
    answer = live.http.request(method, f"/v1/chat/completions{path}", **more)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("key", ["x", "%00", "a%20b", "é", "x" * 300])
def test_what_is_not_there_is_404(live: Live, key: str) -> None:
    for method in ("GET", "DELETE"):
        assert live.http.request(method, f"/v1/chat/completions/{key}").status_code == 404
    assert live.http.get(f"/v1/chat/completions/{key}/messages").status_code == 404


def test_a_key_sees_what_was_made_with_it(scripted_model: HostedModel) -> None:
    scripted_model.loaded = None
    keys = {name: new_key() for name in ("ada", "bob")}
    with running([scripted_model], keys=tuple(hashed(*each) for each in keys.items())) as live:
        ada, bob = (openai.OpenAI(base_url=live.url, api_key=key, max_retries=0) for key in keys.values())
        with ada, bob:
            made = ada.chat.completions.create(**STORED)
            assert ada.chat.completions.retrieve(made.id).id == made.id
            assert not bob.chat.completions.list().data
            for call in (bob.chat.completions.retrieve, bob.chat.completions.delete):
                with pytest.raises(openai.NotFoundError):
                    call(made.id)


def test_state_that_cannot_be_had_fails_what_needs_it(scripted_model: HostedModel) -> None:
    scripted_model.loaded = None
    with running([scripted_model]) as live:
        file = live.services.state._connections._file
        file.parent.mkdir()
        file.write_bytes(b"damaged" * 1000)
        answer = live.http.post("/v1/chat/completions", json=STORED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unavailable")
        assert str(file) not in answer.text
        assert live.http.get("/v1/chat/completions").status_code == 503
        text = live.http.post("/v1/chat/completions", json={**STORED, "stream": True}).text
        assert "state_unavailable" in text
        assert live.http.post("/v1/chat/completions", json={**STORED, "store": False}).status_code == 200
