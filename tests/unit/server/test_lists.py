"""Lists of what is kept, which may be long: nobody waits while one is made."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.server.live import Live

from puna.server.routes import conversations
from puna.server.schemas.base import Reply

SAID: Any = [{"role": "user", "content": text} for text in ("hum", "spit", "half a pair: \ud800")]


def post(live: Live, path: str, **body: Any) -> Any:
    """What comes of a body in which half a surrogate pair may be."""
    headers = {"Content-Type": "application/json"}
    return live.http.post(f"/v1{path}", content=json.dumps(body), headers=headers).raise_for_status().json()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Gets the name of each reply that is written, and whether that is done in the event loop."""
    found: list[tuple[str, bool]] = []
    as_json = Reply.as_json

    def noted(self: Reply) -> str:
        found.append((type(self).__name__, asyncio._get_running_loop() is not None))
        return as_json(self)

    monkeypatch.setattr(Reply, "as_json", noted)
    return found


def test_items_are_written_one_by_one_beside_the_loop(
    live: Live, written: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_loop = []
    stored = conversations.stored

    def noted(items: Any) -> Any:
        in_loop.append(asyncio._get_running_loop() is not None)
        return stored(items)

    monkeypatch.setattr(conversations, "stored", noted)
    made = post(live, "/conversations")["id"]
    written.clear()
    added = post(live, f"/conversations/{made}/items", items=SAID)
    assert in_loop == [False] * 2
    listed = live.http.get(f"/v1/conversations/{made}/items?order=asc").json()
    assert listed == added
    assert [item["content"][0]["text"] for item in listed["data"]] == [each["content"] for each in SAID]
    assert written == [*[("Message", False)] * 3, ("ListReply", False)] * 2


def test_responses_and_what_they_answer_are_written_one_by_one_beside_the_loop(
    live: Live, written: list[tuple[str, bool]]
) -> None:
    made = [post(live, "/responses", model="scripted", input=SAID)["id"] for _ in range(2)]
    written.clear()
    listed = live.http.get("/v1/responses?limit=2").json()
    assert [each["id"] for each in listed["data"]] == made[::-1]
    assert written == [*[("ListedResponse", False)] * 2, ("ListReply", False)]
    written.clear()
    items = live.http.get(f"/v1/responses/{made[0]}/input_items").json()["data"]
    assert items == listed["data"][1]["input"][::-1]
    assert written == [*[("Message", False)] * 3, ("ListReply", False)]


def test_prompts_and_their_versions_are_written_one_by_one_beside_the_loop(
    live: Live, written: list[tuple[str, bool]]
) -> None:
    made = [post(live, "/prompts", prompt=text) for text in ("hum", "half a pair: \ud800")]
    body = {"prompt": "spit", "version": 1, "set_as_default": False}
    added = live.http.put(f"/v1/prompts/{made[0]['prompt_id']}", json=body).json()
    written.clear()
    assert live.http.get("/v1/prompts").json() == {"data": made[::-1]}
    versions = live.http.get(f"/v1/prompts/{made[0]['prompt_id']}/versions").json()
    assert versions == {"data": [made[0], added]}
    assert written == [("Prompt", False)] * 4


def test_completions_and_what_they_answer_are_written_one_by_one_beside_the_loop(
    live: Live, written: list[tuple[str, bool]]
) -> None:
    body = {"model": "scripted", "messages": SAID, "store": True}
    made = [post(live, "/chat/completions", **body)["id"] for _ in range(2)]
    written.clear()
    listed = live.http.get("/v1/chat/completions").json()
    assert [each["id"] for each in listed["data"]] == made
    assert written == [*[("StoredChat", False)] * 2, ("ListReply", False)]
    written.clear()
    messages = live.http.get(f"/v1/chat/completions/{made[0]}/messages").json()["data"]
    assert [message["content"] for message in messages] == [each["content"] for each in SAID]
    assert written == [*[("StoredMessage", False)] * 3, ("ListReply", False)]


def test_one_that_is_kept_is_sent_as_it_was_without_another_look(
    live: Live, written: list[tuple[str, bool]]
) -> None:
    body: Any = {"model": "scripted"}
    response = post(live, "/responses", input=SAID, include=["message.output_text.logprobs"], **body)
    completion = post(live, "/chat/completions", messages=SAID, store=True, logprobs=True, **body)
    written.clear()
    assert live.http.get(f"/v1/responses/{response['id']}").json() == response
    found = live.http.get(f"/v1/chat/completions/{completion['id']}").json()
    assert found == {**completion, "metadata": {}, "input_messages": SAID}
    assert post(live, f"/chat/completions/{completion['id']}", metadata={"wool": "grey"}) == {
        **found,
        "metadata": {"wool": "grey"},
    }
    assert written == []
