"""What is forgotten after a while, and that what is deleted leaves the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update
from tests.unit.server.live import Live
from tests.unit.server.stored import completion, response

from puna.errors import StateError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.routes import ROUTERS
from puna.server.settings import ServerSettings
from puna.server.state import retention, tables, upkeep
from puna.server.state.pages import Page
from puna.server.state.store import State

MARK = "to be forgotten "


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_DELAY_S", 0.0)


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


async def is_there(store: State, owner: str, key: str) -> bool:
    try:
        await store.read(state.completions.find, owner, key)
    except ApiError:
        return False
    return True


async def forget_all(store: State, before: int) -> None:
    await upkeep.Upkeep(store, None)._sweep(time.time() - before)


def make_old(connection: Connection, owner: str) -> None:
    table = tables.completions
    connection.execute(update(table).where(table.c.owner == owner).values(created_at=1))


def n_completions(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(tables.completions)).scalar_one()


def number_of(connection: Connection, key: str) -> int | None:
    table = tables.conversations
    return connection.execute(select(table.c.number).where(table.c.id == key)).scalar_one_or_none()


def n_items(connection: Connection, conversation: int) -> int:
    within = tables.items.c.conversation == conversation
    return connection.execute(select(func.count()).where(within)).scalar_one()


def pages(connection: Connection) -> tuple[int, int]:
    """All pages of the file, and those that nothing is in."""
    count, free = (
        connection.exec_driver_sql(f"PRAGMA {name}_count").scalar_one() for name in ("page", "freelist")
    )
    return count, free


def on_disk(file: Path) -> int:
    """How often the mark is in the files of a database."""
    return sum(each.read_bytes().count(MARK.encode()) for each in file.parent.iterdir())


async def test_what_is_old_is_forgotten_but_for_what_is_gone_on_from(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)  # one row a piece
    monkeypatch.setattr(retention, "SLICE_ROWS", 2)
    old, young, *chain = [new_id(f"r{i}-") for i in range(6)]
    for key, previous in ((old, None), *zip(chain, [None, *chain], strict=False)):
        await kept.write(state.responses.add, owner, response(key, previous))
    await kept.write(state.responses.add, owner, response(young, old, created_at=3000))
    await kept.write(state.completions.add, owner, completion(old, a="b"))
    await forget_all(kept, 2000)
    assert len(await kept.read(state.responses.chain, owner, young)) == 2
    for key in chain:
        with pytest.raises(ApiError, match="not found"):
            await kept.read(state.responses.find, owner, key)
    assert await is_there(kept, owner, old)
    await forget_all(kept, state.responses.now() + 10)
    assert not await is_there(kept, owner, old)
    assert (await kept.read(state.responses.list_page, owner, Page(), None)).entries == []
    await kept.write(state.completions.add, owner, completion(old))


async def test_no_more_rows_are_looked_at_at_once_than_may_be(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_ROWS", 2)
    for _ in range(5):
        await kept.write(state.completions.add, owner, completion(new_id("c-")))
    await kept.write(make_old, owner)
    end = await kept.read(retention.last, tables.completions)
    found = await kept.read(retention.find_old, tables.completions, end, 2)
    assert found == [(tables.completions, end), (tables.completions, end - 1)]


async def test_what_is_old_goes_when_a_server_begins_whatever_its_requests_come_to(
    kept: State, database_url: str | None, file: Path, owner: str
) -> None:
    key = new_id("c-")
    await kept.write(state.completions.add, owner, completion(key))
    await kept.write(make_old, owner)
    other = State(ServerSettings(keep_state_days=1, database_url=database_url), file)
    await other.read(state.prompts.list_all, owner)
    with pytest.raises(ApiError, match="not found"):
        await other.write(state.prompts.remove, owner, "pmpt_none")
    async with asyncio.timeout(20):
        while await is_there(kept, owner, key):
            await asyncio.sleep(0.005)
    await other.close()


@pytest.mark.parametrize("error", [StateError("the disk is full"), ValueError("of nobody's")])
async def test_upkeep_that_fails_is_logged_and_fails_no_write(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    shrink = retention.shrink

    def fail(connection: Connection) -> bool:
        raise error

    monkeypatch.setattr(retention, "shrink", fail)
    monkeypatch.setattr(upkeep, "_AGAIN_S", 0.01)
    store, logged = State(ServerSettings(), file), ""
    made = await store.write(state.prompts.add, "", MARK, [])
    await store.delete(state.prompts.remove, "", made.id)
    async with asyncio.timeout(20):
        while '"state_failed"' not in logged and '"ValueError"' not in logged:
            logged += capfd.readouterr().err
            await asyncio.sleep(0.005)
    assert on_disk(file) > 0
    monkeypatch.setattr(retention, "shrink", shrink)
    await until(lambda: on_disk(file) == 0)  # it is tried again
    await store.close()


async def test_a_write_waits_for_a_piece_of_the_upkeep_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)
    store = State(ServerSettings(keep_state_days=None), file)
    for _ in range(50):
        await store.write(state.completions.add, "", completion(new_id("c-")))
    await store.write(make_old, "")
    other = State(ServerSettings(keep_state_days=1), file)
    while (n_left := await other.write(n_completions)) == 50:
        pass
    assert 0 < n_left < 50
    for each in (store, other):
        await each.close()


async def test_a_write_waits_for_a_piece_of_a_conversation_that_is_deleted_only(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)
    many = [{"id": f"{i}", "text": "x" * 50_000} for i in range(50)]
    made = await kept.write(state.conversations.add, owner, {}, many)
    number = await kept.read(number_of, made.id)
    await kept.delete(state.conversations.remove, owner, made.id)
    seen = set()
    while n_left := await kept.write(n_items, number):
        seen.add(n_left)
    assert max(seen) < 50
    assert len(seen) > 1


async def test_what_a_server_that_was_killed_had_yet_to_delete_goes_when_one_begins(
    kept: State, database_url: str | None, file: Path, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)
    monkeypatch.setattr(upkeep, "_DELAY_S", 60.0)
    many = [{"id": f"{i}", "text": "x" * 50_000} for i in range(5)]
    made = await kept.write(state.conversations.add, owner, {}, many)
    number = await kept.read(number_of, made.id)
    await kept.write(state.conversations.remove, owner, made.id)
    assert await kept.read(n_items, number) == 4
    monkeypatch.setattr(upkeep, "_DELAY_S", 0.0)
    other = State(ServerSettings(database_url=database_url), file)
    async with asyncio.timeout(20):
        while await other.read(number_of, made.id) is not None:
            await asyncio.sleep(0.005)
    assert await kept.read(n_items, number) == 0
    await other.close()


async def test_the_file_gets_smaller(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)  # a page a piece
    store = State(ServerSettings(), file)
    made = await store.write(state.prompts.add, "", "x" * 200_000, [])
    before, _ = await store.read(pages)
    assert before > 50
    await store.delete(state.prompts.remove, "", made.id)
    async with asyncio.timeout(20):
        while (after := await store.read(pages))[1]:
            await asyncio.sleep(0.005)
    assert after[0] < before - 40
    await until(lambda: file.stat().st_size == after[0] * 4096)
    await store.close()


async def test_a_file_that_cannot_get_smaller_is_left_as_it_is(file: Path) -> None:
    store = State(ServerSettings(), file)
    made = await store.write(state.prompts.add, "", "x" * 200_000, [])
    await store.close()
    with closing(sqlite3.connect(file)) as connection:  # as a dump that was read back has it
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    store = State(ServerSettings(), file)
    await store.write(state.prompts.remove, "", made.id)
    assert (await store.read(pages))[1] > 40
    assert not await store.write(retention.shrink)
    await store.close()


@pytest.mark.parametrize("is_read_meanwhile", [False, True])
async def test_what_is_deleted_leaves_the_disk(file: Path, is_read_meanwhile: bool) -> None:
    store = State(ServerSettings(), file)
    made = await store.write(state.prompts.add, "", MARK * 1000, [])
    await store.write(state.prompts.add, "", "another", [])
    assert on_disk(file) >= 1000
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        if is_read_meanwhile:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM puna_prompts").fetchone()
        await store.delete(state.prompts.remove, "", made.id)
        if is_read_meanwhile:
            for _ in range(3):  # nobody waits for the reader
                await store.write(state.prompts.add, "", "more", [])
            assert on_disk(file) >= 1000
            reader.execute("COMMIT")
        await until(lambda: on_disk(file) == 0)
    await store.close()


def test_every_delete_route_has_what_it_deletes_wiped(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[None] = []
    monkeypatch.setattr(live.services.state._upkeep, "want", lambda: wanted.append(None))
    http = live.http
    hum: Any = {"role": "user", "content": "hum"}
    chat = {"model": "scripted", "messages": [hum], "store": True}
    paths = [f"/v1/chat/completions/{http.post('/v1/chat/completions', json=chat).json()['id']}"]
    asked = {"model": "scripted", "input": "hum"}
    paths.append(f"/v1/responses/{http.post('/v1/responses', json=asked).json()['id']}")
    paths.append(f"/v1/prompts/{http.post('/v1/prompts', json={'prompt': 'hum'}).json()['prompt_id']}")
    conversation = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}"
    (item,) = http.post(f"{conversation}/items", json={"items": [hum]}).json()["data"]
    paths += [f"{conversation}/items/{item['id']}", conversation]
    assert len(paths) == sum("DELETE" in route.methods for group in ROUTERS for route in group.routes)  # type: ignore[attr-defined]
    for n_deleted, path in enumerate(paths, 1):
        assert http.delete(path).status_code in (200, 204), path
        assert len(wanted) == n_deleted
