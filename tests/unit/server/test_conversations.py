"""Conversations with their items, and prompts with their versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.unit.server.live import Live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


HELLO: Any = {"type": "message", "role": "user", "content": "Hello"}


def test_a_conversation_is_made_changed_and_deleted(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"topic": "hum"})
    assert made.id.startswith("conv_")
    assert len(made.id) == len("conv_") + 48
    assert client.conversations.retrieve(made.id) == made
    changed = client.conversations.update(made.id, metadata={"topic": "spit"})
    assert (changed.metadata, changed.created_at) == ({"topic": "spit"}, made.created_at)
    assert client.conversations.delete(made.id).to_dict() == {
        "id": made.id, "object": "conversation.deleted", "deleted": True,
    }  # fmt: skip
    with pytest.raises(openai.NotFoundError, match=f"Conversation '{made.id}' not found."):
        client.conversations.retrieve(made.id)


def test_an_empty_conversation_needs_no_body(live: Live) -> None:
    for headers in ({}, {"Content-Type": "application/json"}):
        made = live.http.post("/v1/conversations", headers=headers)
        assert (made.status_code, made.json()["metadata"]) == (200, {})
        assert live.http.get(f"/v1/conversations/{made.json()['id']}/items").json()["data"] == []
    assert live.http.post("/v1/conversations", content=b"null").status_code == 400


def test_items_are_added_listed_and_deleted(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(items=[HELLO])
    more: Any = [
        {"role": "assistant", "content": "Hi."},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "warm"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    ]
    added = client.conversations.items.create(conversation.id, items=more)
    ids = [item.id for item in added.data]
    assert [key.split("_")[0] for key in ids if key] == ["msg", "fc", "fco", "rs"]
    assert (added.first_id, added.last_id, added.has_more) == (ids[0], ids[-1], False)
    listed = [item.id for item in client.conversations.items.list(conversation.id, order="asc", limit=2)]
    assert listed[1:] == ids
    newest = client.conversations.items.list(conversation.id, limit=1)
    assert [item.id for item in newest.data] == ids[-1:]
    found = client.conversations.items.retrieve(str(ids[2]), conversation_id=conversation.id)
    assert found == added.data[2]
    assert (
        client.conversations.items.delete(str(ids[2]), conversation_id=conversation.id).id == conversation.id
    )
    with pytest.raises(openai.NotFoundError, match=f"Item '{ids[2]}' not found"):
        client.conversations.items.retrieve(str(ids[2]), conversation_id=conversation.id)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"items": [HELLO] * 21}),
        ("", {"items": [{"type": "web_search_call", "id": "x"}]}),
        ("", {"metadata": {"a": 1}}),
        ("/ID/items", {}),
        ("/ID/items", {"items": [{"role": "user", "content": [{"type": "input_image"}]}]}),
        ("/ID/items", {"items": [{**HELLO, "id": "a"}, {**HELLO, "id": "a"}]}),
        ("/ID/items", {"items": [{**HELLO, "id": "a b"}]}),
        ("/ID", {}),
    ],
)
def test_a_wrong_conversation_is_400(live: Live, path: str, body: Any) -> None:
    made = live.http.post("/v1/conversations", json={}).json()["id"]
    assert live.http.post(f"/v1/conversations{path.replace('ID', made)}", json=body).status_code == 400
    assert live.http.get(f"/v1/conversations/{made}/items").json()["data"] == []
    assert live.http.get(f"/v1/conversations/{made}/items?after=x").status_code == 400


def test_what_is_not_there_is_404(live: Live) -> None:
    made = live.http.post("/v1/conversations", json={}).json()["id"]
    for method, path, body in (
        ("GET", "conv_x", None),
        ("DELETE", "conv_x", None),
        ("POST", "conv_x", {"metadata": {}}),
        ("GET", "conv_x/items", None),
        ("POST", "conv_x/items", {"items": [HELLO]}),
        ("GET", f"{made}/items/x", None),
        ("DELETE", f"{made}/items/x", None),
        ("GET", "%00", None),
        ("GET", f"{made}/items/%00", None),
    ):
        assert live.http.request(method, f"/v1/conversations/{path}", json=body).status_code == 404, path


def test_a_prompt_has_versions(live: Live) -> None:
    body = {"prompt": "Speak of {{ topic }}.", "variables": ["topic"]}
    made = live.http.post("/v1/prompts", json=body).json()
    key = made["prompt_id"]
    assert key.startswith("pmpt_")
    assert len(key) == len("pmpt_") + 48
    assert made == {**body, "prompt_id": key, "version": 1, "is_default": True}
    path = f"/v1/prompts/{key}"
    second = live.http.put(path, json={"prompt": "Two.", "version": 1}).json()
    assert (second["version"], second["is_default"], second["variables"]) == (2, True, [])
    third = live.http.put(path, json={"prompt": "Three.", "version": 2, "set_as_default": False}).json()
    assert (third["version"], third["is_default"]) == (3, False)
    assert live.http.put(path, json={"prompt": "Late.", "version": 2}).status_code == 400
    assert live.http.get(path).json() == second
    assert live.http.get(f"{path}?version=3").json() == third
    assert live.http.put(f"{path}/set-default-version", json={"version": 1}).json() == made
    listed = live.http.get("/v1/prompts").json()["data"]
    assert [each for each in listed if each["prompt_id"] == key] == [made]
    versions = live.http.get(f"{path}/versions").json()["data"]
    assert [each["version"] for each in versions] == [1, 2, 3]
    assert [each["is_default"] for each in versions] == [True, False, False]
    assert (live.http.delete(path).status_code, live.http.delete(path).status_code) == (204, 404)
    for rest in ("", "/versions", "?version=1"):
        assert live.http.get(f"{path}{rest}").status_code == 404
    assert live.http.put(path, json={"prompt": "x", "version": 1}).status_code == 404
    assert live.http.put(f"{path}/set-default-version", json={"version": 1}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "Speak of {{ topic }}."},
        {"prompt": "Speak.", "variables": ["a b"]},
        {"prompt": 7},
        {"text": "Speak."},
    ],
)
def test_a_wrong_prompt_is_400(live: Live, body: Any) -> None:
    assert live.http.post("/v1/prompts", json=body).status_code == 400
