"""The database that the server keeps things in: made, shared, damaged, full or gone."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from tests.unit.server.stored import response

from puna.errors import ConfigError, StateError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.settings import ServerSettings
from puna.server.state import retention, tables
from puna.server.state.database import _bring_up_to_date
from puna.server.state.store import State


async def test_the_tables_are_those_that_the_migrations_make(kept: State) -> None:
    def compare(connection: Connection) -> Any:
        context = MigrationContext.configure(connection, opts={"version_table": "puna_version"})
        return compare_metadata(context, tables.METADATA)

    assert await kept.read(compare) == []


async def test_items_of_responses_that_were_kept_before_are_found(kept: State, owner: str) -> None:
    key = new_id("r-")
    await kept.write(state.responses.add, owner, response(key))

    def go_back(connection: Connection) -> None:
        connection.execute(text("DROP INDEX puna_items_id"))
        connection.execute(text("DROP TABLE puna_response_items"))
        connection.execute(text("UPDATE puna_version SET version_num = '0001'"))

    await kept.write(go_back)
    await kept.maintain(lambda engine: _bring_up_to_date(engine, "here"))
    found = await kept.read(state.responses.find_items, owner, [f"in-{key}", f"out-{key}"])
    assert len(found) == 2


async def test_nothing_is_made_before_the_first_use(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.close()
    assert not file.parent.exists()


async def test_the_database_is_for_its_user_only(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "x", [])
    assert [file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777] == [0o600, 0o700]
    await store.close()
    assert not file.with_name("puna.db-wal").exists()  # all of it is in the one file


async def test_two_servers_share_a_database(
    kept: State, database_url: str | None, owner: str, file: Path
) -> None:
    other = State(ServerSettings(database_url=database_url), file)
    conversation = await kept.write(state.conversations.add, owner, {}, [])

    async def add(store: State, name: str) -> None:
        for i in range(20):
            await store.write(state.conversations.add_items, owner, conversation.id, [{"id": f"{name}{i}"}])

    await asyncio.gather(add(kept, "a"), add(other, "b"))
    assert len(await other.read(state.conversations.said, owner, conversation.id)) == 40
    await other.close()


async def test_two_servers_open_an_empty_database_at_once(file: Path) -> None:
    stores = [State(ServerSettings(), file) for _ in range(4)]
    found = await asyncio.gather(*(store.write(state.prompts.add, "", "x", []) for store in stores))
    assert len({prompt.id for prompt in found}) == 4
    for store in stores:
        await store.close()


def damage_head(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


def damage_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def another_program_s(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def newer(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE puna_version SET version_num = '9999'")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage_head, "damaged"),
        (damage_middle, "damaged"),
        (cut, "damaged"),
        (another_program_s, "another program"),
        (newer, "newer Puna .*'9999'"),
    ],
)
async def test_a_database_that_cannot_be_used_is_an_error(file: Path, harm: Any, reason: str) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "x", [])
    await store.close()
    harm(file)
    before = file.read_bytes()
    store = State(ServerSettings(), file)
    with pytest.raises(StateError, match=reason):
        await store.read(state.prompts.list_all, "")
    await store.close()
    if harm in (damage_head, newer):
        assert file.read_bytes() == before  # nothing was made of it


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    store = State(ServerSettings(), tmp_path / "state" / "puna.db")
    with pytest.raises(StateError, match="cannot be kept in"):
        await store.read(state.prompts.list_all, "")
    await store.close()


async def test_a_full_database_refuses_and_stays_whole(file: Path) -> None:
    store = State(ServerSettings(max_state_bytes=1024**2), file)
    added = []

    async def fill() -> None:
        for _ in range(100):
            added.append(await store.write(state.prompts.add, "", "x" * 50_000, []))

    with pytest.raises(ApiError, match="no room") as caught:
        await fill()
    assert (caught.value.status_code, caught.value.code) == (507, "state_full")
    assert len(await store.read(state.prompts.list_all, "")) == len(added) > 5
    for prompt in added:
        await store.write(state.prompts.remove, "", prompt.id)
    await store.write(state.prompts.add, "", "x" * 50_000, [])
    await store.close()


async def test_conversations_are_deleted_from_a_full_database(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PIECE_S", 0.0)
    store = State(ServerSettings(max_state_bytes=1024**2), file)
    two = [{"id": "a"}, {"id": "b"}]
    made = [await store.write(state.conversations.add, "", {}, two) for _ in range(100)]

    def add(connection: Connection, count: int) -> None:
        for _ in range(count):
            state.conversations.add(connection, "", {}, [])

    async def fill(count: int) -> None:
        while True:
            await store.write(add, count)

    for count in (1000, 100, 10, 1):  # until not even one has room
        with pytest.raises(ApiError, match="no room"):
            await fill(count)
    for each in made:
        await store.write(state.conversations.remove, "", each.id)
    await store.close()


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "nonsense secret", "sqlite:///secret", "://secret", "secret"]
)
def test_an_address_that_is_no_postgresql_is_an_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        State(ServerSettings(database_url=url))
    assert "secret" not in str(caught.value).replace("sqlite:///", "")
    assert "secret" not in repr(ServerSettings(database_url=url))


async def test_a_database_that_comes_back_is_used_again(postgres_url: str, owner: str) -> None:
    store = State(ServerSettings(database_url=postgres_url))
    made = await store.write(state.prompts.add, owner, "hum", [])

    def end_all_others(connection: Connection) -> None:
        clients = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {clients}"))

    other = State(ServerSettings(database_url=postgres_url))
    await other.write(end_all_others)
    assert await store.read(state.prompts.find, owner, made.id) == made
    await store.close()
    await other.close()


async def test_a_database_that_does_not_answer_is_an_error_without_the_password(tmp_path: Path) -> None:
    settings = ServerSettings(database_url=f"postgresql://ada:secret@/hum?host={tmp_path}")
    store = State(settings)
    with pytest.raises(StateError, match="'hum'") as caught:
        await store.read(state.prompts.list_all, "")
    assert "secret" not in str(caught.value)
    await store.close()
