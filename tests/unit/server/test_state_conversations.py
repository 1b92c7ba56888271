"""Conversations that are kept."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, func, select
from tests.unit.server.stored import ODD, response

from puna.server import state
from puna.server.errors import ApiError
from puna.server.state import retention, tables, upkeep
from puna.server.state.conversations import MAX_ITEMS
from puna.server.state.pages import Page
from puna.server.state.store import State
from puna.server.state.tables import conversations, items


async def test_a_conversation_gets_what_was_said(kept: State, owner: str) -> None:
    conversation = await kept.write(state.conversations.add, owner, {"a": "b"}, [{"id": "i0", "text": ODD}])
    about = {"conversation": {"id": conversation.id}}
    await kept.write(state.responses.add, owner, response("r1" + conversation.id, **about))
    said = await kept.read(state.conversations.said, owner, conversation.id)
    assert said[0] == {"id": "i0", "text": ODD}
    assert [item["id"][:4] for item in said[1:]] == ["in-r", "out-"]
    page = await kept.read(state.conversations.item_page, owner, conversation.id, Page("i0", 1, "asc"))
    assert (page.entries, page.has_more) == ([said[1]], True)
    after = await kept.write(state.conversations.remove_item, owner, conversation.id, "i0")
    assert after == conversation
    with pytest.raises(ApiError, match="Item 'i0' not found"):
        await kept.read(state.conversations.find_item, owner, conversation.id, "i0")
    with pytest.raises(ApiError, match="has an item"):
        await kept.write(state.conversations.add_items, owner, conversation.id, [said[1]])
    await kept.write(state.conversations.remove, owner, conversation.id)
    with pytest.raises(ApiError, match="not found"):
        await kept.read(state.conversations.said, owner, conversation.id)


async def test_items_are_found_by_their_ids_for_their_owner(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        await kept.write(state.conversations.add, owner, {}, [{"id": "a", "text": text}, {"id": text}])
        for text in ("old", "new")
    ]
    await kept.write(state.conversations.add, f"not {owner}", {}, [{"id": "a", "text": "another's"}])
    said = response("r" + made[0].id)
    await kept.write(state.responses.add, owner, said)
    ids = ["a", "old", said.input[0]["id"]]
    found = await kept.read(state.responses.find_items, owner, ids)
    assert found == {"a": {"id": "a", "text": "new"}, "old": {"id": "old"}, ids[2]: said.input[0]}
    with pytest.raises(ApiError, match="'old' not found"):
        await kept.read(state.responses.find_items, f"not {owner}", ids)
    await kept.write(state.conversations.remove, owner, made[1].id)
    assert (await kept.read(state.responses.find_items, owner, ["a"]))["a"]["text"] == "old"
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 10)
    with pytest.raises(ApiError, match="takes 23 bytes"):
        await kept.read(state.responses.find_items, owner, ["a"])


async def test_a_conversation_with_many_items_is_gone_at_once(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)  # an item a piece
    monkeypatch.setattr(upkeep, "_DELAY_S", 60.0)
    many = [{"id": f"{i}", "text": "x" * 50_000} for i in range(5)]
    made, copy = [await kept.write(state.conversations.add, owner, {}, many) for _ in range(2)]

    def remove(connection: Connection) -> int:
        within = items.c.conversation == conversations.c.number, conversations.c.id == copy.id
        state.conversations.remove(connection, owner, copy.id)
        return connection.execute(select(func.count()).where(*within)).scalar_one()

    assert await kept.write(remove) == 4
    for look in (state.conversations.find, state.conversations.said, state.conversations.remove):
        with pytest.raises(ApiError, match="not found"):
            await kept.write(look, owner, copy.id)
    for left in (state.conversations.find_item, state.conversations.remove_item):
        with pytest.raises(ApiError, match="not found"):
            await kept.write(left, owner, copy.id, "4")
    with pytest.raises(ApiError, match="not found"):
        await kept.write(state.conversations.add_items, owner, copy.id, [{"id": "5"}])
    await kept.write(state.conversations.remove, owner, made.id)
    assert await kept.read(state.conversations.find_named, owner, ["4"]) == {}


async def test_a_conversation_has_a_limit(kept: State, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ITEMS == 10_000
    monkeypatch.setattr(state.conversations, "MAX_ITEMS", 2)
    conversation = await kept.write(state.conversations.add, owner, {}, [{"id": "a"}, {"id": "b"}])
    with pytest.raises(ApiError, match="may have 2 items"):
        await kept.write(state.conversations.add_items, owner, conversation.id, [{"id": "c"}])


async def test_what_two_say_at_once_stands_one_behind_the_other(kept: State, owner: str) -> None:
    made = await kept.write(state.conversations.add, owner, {}, [])
    batches = [[{"id": f"{i}-{j}"} for j in range(20)] for i in range(8)]
    await asyncio.gather(
        *(kept.write(state.conversations.add_items, owner, made.id, batch) for batch in batches)
    )
    said = [item["id"] for item in await kept.read(state.conversations.said, owner, made.id)]
    first = [int(key.split("-")[0]) for key in said[::20]]
    assert sorted(first) == list(range(8))
    assert said == [f"{i}-{j}" for i in first for j in range(20)]
