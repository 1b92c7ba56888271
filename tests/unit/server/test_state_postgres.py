"""What the server keeps in PostgreSQL, where rows come over a socket and many write at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, literal_column, select, text
from tests.unit.server.stored import completion

from puna.server import state
from puna.server.ids import new_id
from puna.server.settings import ServerSettings
from puna.server.state import tables
from puna.server.state.pages import Page
from puna.server.state.paging import fetch_page
from puna.server.state.store import State


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[State]:
    store = State(ServerSettings(database_url=postgres_url))
    yield store
    await store.close()


async def test_a_page_is_read_only_as_far_as_it_may_be(
    store: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(8):
        await store.write(state.completions.add, owner, completion(new_id("c-")))
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 1)

    def read(connection: Connection) -> tuple[int, int]:
        connection.execute(text("CREATE TEMPORARY SEQUENCE n_sent"))
        query = select(tables.completions.c.body, literal_column("nextval('n_sent')"))
        page = fetch_page(connection, tables.completions, query, tables.completions.c.owner == owner, Page())
        return len(page.entries), connection.execute(text("SELECT last_value FROM n_sent")).scalar_one()

    assert await store.write(read) == (1, 2)  # with the second one it would be too much


async def test_metadata_that_are_changed_twice_at_once_are_those_of_the_later_change(
    store: State, owner: str
) -> None:
    key = new_id("c-")
    await store.write(state.completions.add, owner, completion(key, name="old"))
    has_changed = threading.Event()

    def change(connection: Connection) -> None:
        state.completions.label(connection, owner, key, {"name": "first"})
        has_changed.set()
        query = text(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
        )
        until_s = time.monotonic() + 30
        while not connection.execute(query).scalar_one():
            assert time.monotonic() < until_s, "the second change did not wait for this one"
            time.sleep(0.01)

    first = asyncio.create_task(store.write(change))
    assert await asyncio.to_thread(has_changed.wait, 30)
    changed = await store.write(state.completions.label, owner, key, {"name": "second"})
    await first
    assert changed.labels == {"name": "second"}
    assert await store.read(state.completions.find, owner, key) == changed
