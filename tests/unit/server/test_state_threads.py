"""Waiting for the database, which may hang, be held by others or have too much to do."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from puna.errors import StateError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.settings import ServerSettings
from puna.server.state import threads
from puna.server.state.store import State
from puna.server.state.threads import Threads


async def test_writes_that_another_process_holds_up_fail_together(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "before", [])
    monkeypatch.setattr(threads, "_WAIT_S", 0.5)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(9):  # a single one waits for 10 s in SQLite
            done = await asyncio.gather(
                *(store.write(state.prompts.add, "", "meanwhile", []) for _ in range(8)),
                return_exceptions=True,
            )
        (reason,) = {str(each) for each in done}
        assert "did not answer for 0.5 s: it hangs, is held or is too busy; nothing was changed" in reason
        assert len(await store.read(state.prompts.list_all, "")) == 1
    monkeypatch.undo()
    await store.write(state.prompts.add, "", "after", [])
    assert [each.text for each in await store.read(state.prompts.list_all, "")] == ["after", "before"]
    await store.close()


async def test_what_was_told_as_not_done_is_not_done_later(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, complaints = threading.Event(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))

    def add(connection: Connection) -> None:
        state.prompts.add(connection, owner, "hum", [])
        assert may_go_on.wait(30)

    await kept.read(state.prompts.list_all, owner)
    monkeypatch.setattr(threads, "_WAIT_S", 0.2)
    with pytest.raises(StateError, match="nothing was changed"):
        await kept.write(add)
    monkeypatch.undo()
    may_go_on.set()
    await kept.write(state.prompts.add, owner, "later", [])
    assert [each.text for each in await kept.read(state.prompts.list_all, owner)] == ["later"]
    gc.collect()
    assert complaints == []


async def test_nobody_is_told_that_what_may_be_done_yet_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()

    def work(decide: Callable[[], None]) -> None:
        decide()
        assert may_go_on.wait(30)

    monkeypatch.setattr(threads, "_WAIT_S", 0.2)
    some = Threads(1, "test")
    with pytest.raises(ApiError, match=r"longer than 0\.2 s, and whether it was kept is not known") as caught:
        await some.run(work)
    assert (caught.value.status_code, caught.value.code) == (503, "state_unavailable")
    may_go_on.set()
    await some.close()


async def test_a_database_that_hangs_has_so_many_wait_and_no_more(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_MAX_WAITING", 3)
    store = State(ServerSettings(), file)
    may_go_on = threading.Event()

    def hang(connection: Connection) -> None:
        assert may_go_on.wait(30)

    writes = [asyncio.create_task(store.write(hang)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(StateError, match="3 others wait"):
        await store.write(hang)
    assert await store.read(state.prompts.list_all, "") == []
    writes[-1].cancel()  # its client went away: the place is another's
    await asyncio.wait(writes[-1:])
    writes[-1] = asyncio.create_task(store.write(state.prompts.add, "", "hum", []))
    may_go_on.set()
    await asyncio.gather(*writes)
    assert len(await store.read(state.prompts.list_all, "")) == 1
    await store.close()


async def test_postgresql_ends_what_takes_too_long(postgres_url: str) -> None:
    store = State(ServerSettings(database_url=f"{postgres_url}&keepalives_idle=77"))

    def fail(connection: Connection) -> None:
        connection.execute(text("SELECT 1 / 0"))

    def shown(connection: Connection) -> str:
        return str(connection.execute(text("SHOW statement_timeout")).scalar_one())

    def given(engine: Engine) -> dict[str, Any]:
        with closing(engine.raw_connection()) as connection:
            assert connection.driver_connection is not None
            parameters: dict[str, Any] = connection.driver_connection.info.get_parameters()
            return parameters

    with pytest.raises(StateError, match="DivisionByZero"):
        await store.write(fail)
    assert await store.write(shown) == "10s"  # what failed before has not undone it
    found = await store.maintain(given)
    assert (found["tcp_user_timeout"], found["keepalives_idle"]) == ("10000", "77")
    await store.close()
