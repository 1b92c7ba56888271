"""What the server keeps, in SQLite and in PostgreSQL: whose it is, pages, and changes that fail."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection
from tests.unit.server.stored import completion, response

from puna.errors import ConfigError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.state import tables
from puna.server.state.pages import Page
from puna.server.state.store import State


async def test_a_completion_comes_back_as_it_was(kept: State, owner: str) -> None:
    added = completion(new_id("c-"), project="hum")
    await kept.write(state.completions.add, owner, added)
    key = added.body["id"]
    assert await kept.read(state.completions.find, owner, key) == added
    changed = await kept.write(state.completions.label, owner, key, {"a": "b", "c": "d"})
    assert changed.labels == {"a": "b", "c": "d"}
    await kept.write(state.completions.remove, owner, key)
    with pytest.raises(ApiError, match="not found"):
        await kept.read(state.completions.find, owner, key)


async def test_nothing_of_another_owner_is_seen(kept: State, owner: str) -> None:
    key = new_id("x-")
    await kept.write(state.completions.add, owner, completion(key))
    await kept.write(state.responses.add, owner, response(key))
    conversation = await kept.write(state.conversations.add, owner, {}, [])
    prompt = await kept.write(state.prompts.add, owner, "text", [])
    other = new_id("owner-")
    for find, name in (
        (state.completions.find, key),
        (state.completions.remove, key),
        (state.responses.find, key),
        (state.responses.chain, key),
        (state.responses.cancel, key),
        (state.responses.remove, key),
        (state.conversations.find, conversation.id),
        (state.conversations.said, conversation.id),
        (state.conversations.remove, conversation.id),
        (state.prompts.find, prompt.id),
        (state.prompts.remove, prompt.id),
    ):
        with pytest.raises(ApiError, match="not found"):
            await kept.write(find, other, name)
        await kept.read(state.completions.find, owner, key)
    with pytest.raises(ApiError, match="not found"):
        await kept.write(
            state.responses.add, other, response(new_id("x-"), conversation={"id": conversation.id})
        )
    assert (await kept.read(state.completions.list_page, other, Page(), None, {})).entries == []
    assert (await kept.read(state.responses.list_page, other, Page(), None)).entries == []
    assert await kept.read(state.prompts.list_all, other) == []


async def test_pages_hold_every_entry_once(kept: State, owner: str) -> None:
    keys = [new_id(f"c{i}-") for i in range(7)]
    for i, key in enumerate(keys):
        await kept.write(state.completions.add, owner, completion(key, even=str(i % 2 == 0)))
    for order in ("asc", "desc"):
        seen: list[str] = []
        after, more = None, True
        while more:
            page = await kept.read(
                state.completions.list_page,
                owner,
                Page(after, 3, order),
                "m",
                {},  # type: ignore[arg-type]
            )
            seen += [entry.body["id"] for entry in page.entries]
            after, more = seen[-1], page.has_more
        assert seen == (keys if order == "asc" else keys[::-1])
    even = await kept.read(state.completions.list_page, owner, Page(order="asc"), None, {"even": "True"})
    assert [entry.body["id"] for entry in even.entries] == keys[::2]
    assert (await kept.read(state.completions.list_page, owner, Page(), "other", {})).entries == []
    for nothing in ("nobody", "\0", ""):
        with pytest.raises(ApiError, match="`after`"):
            await kept.read(state.completions.list_page, owner, Page(nothing), None, {})


async def test_pages_of_a_model_s_responses_are_full(kept: State, owner: str) -> None:
    keys = [new_id("resp_") for _ in range(6)]
    for i, key in enumerate(keys):
        await kept.write(state.responses.add, owner, response(key, model="ab"[i % 2]))
    first = await kept.read(state.responses.list_page, owner, Page(None, 2, "asc"), "b")
    assert ([each.body["id"] for each in first.entries], first.has_more) == ([keys[1], keys[3]], True)
    rest = await kept.read(state.responses.list_page, owner, Page(keys[3], 2, "asc"), "b")
    assert ([each.body["id"] for each in rest.entries], rest.has_more) == ([keys[5]], False)


async def test_a_request_reads_only_so_much(kept: State, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [new_id(f"r{i}-") for i in range(4)]
    for previous, key in zip([None, *keys], keys, strict=False):
        await kept.write(state.responses.add, owner, response(key, previous, said="x" * 1000))
    conversation = await kept.write(state.conversations.add, owner, {}, [{"id": "a", "text": "x" * 1000}])
    assert len(await kept.read(state.responses.chain, owner, keys[-1])) == 4
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 2600)
    assert len(await kept.read(state.responses.chain, owner, keys[1])) == 2
    with pytest.raises(ApiError, match=r"takes 5\d\d\d bytes, and a request may go on from 2600; begin anew"):
        await kept.read(state.responses.chain, owner, keys[-1])
    page = await kept.read(state.responses.list_page, owner, Page(order="asc"), None)
    assert ([each.body["id"] for each in page.entries], page.has_more) == (keys[:2], True)
    rest = await kept.read(state.responses.list_page, owner, Page(keys[1], order="asc"), None)
    assert ([each.body["id"] for each in rest.entries], rest.has_more) == (keys[2:], False)
    assert len(await kept.read(state.conversations.said, owner, conversation.id)) == 1
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 500)
    with pytest.raises(ApiError, match="begin anew"):
        await kept.read(state.conversations.said, owner, conversation.id)
    page = await kept.read(state.responses.list_page, owner, Page(order="asc"), None)
    assert len(page.entries) == 1  # there is always one, or nobody would get any further


async def test_a_change_that_fails_leaves_nothing(kept: State, owner: str) -> None:
    def both(connection: Connection) -> None:
        state.prompts.add(connection, owner, "text", [])
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        await kept.write(both)
    assert await kept.read(state.prompts.list_all, owner) == []
