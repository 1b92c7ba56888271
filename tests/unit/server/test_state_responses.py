"""Responses that are kept: what they go on from, and those that run in the background."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection
from tests.unit.server.stored import response

from puna.server import state
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.state.store import State


async def test_responses_go_on_from_one_another(kept: State, owner: str) -> None:
    keys = [new_id(f"r{i}-") for i in range(4)]
    for previous, key in zip([None, *keys], keys, strict=False):
        await kept.write(state.responses.add, owner, response(key, previous))
    found = await kept.read(state.responses.chain, owner, keys[-1])
    assert [each.body["id"] for each in found] == keys
    assert [item["id"] for item in state.responses.said(found)][:4] == [
        f"in-{keys[0]}", f"out-{keys[0]}", f"in-{keys[1]}", f"out-{keys[1]}",
    ]  # fmt: skip
    await kept.write(state.responses.remove, owner, keys[1])
    with pytest.raises(ApiError, match=f"'{keys[1]}' not found"):
        await kept.read(state.responses.chain, owner, keys[-1])


async def test_what_ran_in_the_background_ends_once(kept: State, owner: str) -> None:
    first, second = new_id("r-"), new_id("r-")
    for key in (first, second):
        await kept.write(state.responses.add, owner, response(key, status="queued", background=True))
    assert await kept.write(state.responses.keep_alive, [first, second, "gone"]) == {first, second}
    assert await kept.write(state.responses.finish, owner, response(first))
    cancelled = await kept.write(state.responses.cancel, owner, second)
    assert cancelled.body["status"] == "cancelled"
    assert not await kept.write(state.responses.finish, owner, response(second))
    assert (await kept.read(state.responses.find, owner, second)).body["status"] == "cancelled"
    assert await kept.write(state.responses.keep_alive, [first, second]) == set()
    with pytest.raises(ApiError, match="cannot be cancelled"):
        await kept.write(state.responses.cancel, owner, first)


async def test_what_was_completed_just_now_is_not_cancelled(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, finish = new_id("r-"), state.responses.finish
    await kept.write(state.responses.add, owner, response(key, status="queued", background=True))

    def too_late(connection: Connection, owner: str, cancelled: state.responses.StoredResponse) -> bool:
        finish(connection, owner, response(key, background=True))  # as another server does meanwhile
        return finish(connection, owner, cancelled)

    monkeypatch.setattr(state.responses, "finish", too_late)
    with pytest.raises(ApiError, match="cannot be cancelled: it is completed"):
        await kept.write(state.responses.cancel, owner, key)


async def test_a_response_whose_server_fell_silent_has_failed(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_id("r-")
    await kept.write(state.responses.add, owner, response(key, status="in_progress", background=True))
    assert (await kept.read(state.responses.find, owner, key)).body["status"] == "in_progress"
    later = state.responses.now() + 1000
    monkeypatch.setattr(state.responses, "now", lambda: later)
    found = (await kept.read(state.responses.find, owner, key)).body
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


async def test_items_are_found_by_their_ids_for_their_owner(kept: State, owner: str) -> None:
    first, second = new_id("r-"), new_id("r-")
    await kept.write(state.responses.add, owner, response(first))
    await kept.write(state.responses.add, owner, response(second, status="queued", background=True))
    await kept.write(state.responses.finish, owner, response(second))
    ids = [f"in-{first}", f"out-{first}", f"out-{second}"]
    found = await kept.read(state.responses.find_items, owner, ids)
    assert {key: item["id"] for key, item in found.items()} == {key: key for key in ids}
    with pytest.raises(ApiError, match=f"'in-{first}' not found"):
        await kept.read(state.responses.find_items, f"not {owner}", ids)
    await kept.write(state.responses.remove, owner, first)
    with pytest.raises(ApiError, match=f"'in-{first}' not found"):
        await kept.read(state.responses.find_items, owner, ids)
