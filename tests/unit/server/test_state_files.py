"""SQLite's files, which somebody removes, moves, replaces or damages while the server has them open."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine
from tests.unit.server.test_state_database import damage_middle

from puna.errors import StateError
from puna.server import state
from puna.server.settings import ServerSettings
from puna.server.state import connections
from puna.server.state.database import open_database
from puna.server.state.store import State

BODIES = "SELECT body FROM puna_prompt_versions"
SUFFIXES = ("", "-wal", "-shm")


def files(file: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    return [Path(f"{file}{suffix}") for suffix in suffixes]


def texts(file: Path) -> set[str]:
    """What is kept, as somebody sees it who opens the file."""
    with closing(sqlite3.connect(file)) as connection:
        return {json.loads(body)["text"] for (body,) in connection.execute(BODIES)}


def remove(file: Path, suffixes: tuple[str, ...]) -> None:
    for each in files(file, suffixes):
        each.unlink()


def move(file: Path, suffixes: tuple[str, ...]) -> None:
    away = file.parent.parent / "away"
    away.mkdir()
    for each in files(file, suffixes):
        each.rename(away / each.name)


@pytest.mark.parametrize("suffixes", [SUFFIXES, ("",), ("-wal",)])
@pytest.mark.parametrize("harm", [remove, move])
async def test_what_is_acknowledged_after_files_are_gone_is_kept(
    file: Path,
    capfd: pytest.CaptureFixture[str],
    harm: Callable[[Path, tuple[str, ...]], None],
    suffixes: tuple[str, ...],
) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "before", [])
    harm(file, suffixes)
    made = await store.write(state.prompts.add, "", "after", [])
    assert (await store.read(state.prompts.find, "", made.id)).text == "after"
    is_kept = suffixes == ("-wal",)  # SQLite has it open still, and the file is in its place
    assert texts(file) == ({"before", "after"} if is_kept else {"after"})
    assert file.stat().st_mode & 0o777 == 0o600
    if harm is move and not is_kept:
        assert texts(file.parent.parent / "away" / file.name) == {"before"}
    await store.close()
    assert texts(file) == ({"before", "after"} if is_kept else {"after"})
    assert "removed, moved or replaced" in capfd.readouterr().err


async def test_a_copy_that_is_put_back_is_not_mixed_with_what_there_was(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "in the copy", [])
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(file, file.with_name("copy"))
    for i in range(20):
        await store.write(state.prompts.add, "", f"behind the copy {i}", [])
    file.with_name("copy").replace(file)  # and its log stays, of what there was
    await store.write(state.prompts.add, "", "after", [])
    assert texts(file) == {"in the copy", "after"}
    await store.close()
    assert texts(file) == {"in the copy", "after"}


async def test_a_write_whose_file_is_moved_meanwhile_is_not_acknowledged(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "before", [])

    def add(connection: Connection) -> None:
        state.prompts.add(connection, "", "meanwhile", [])
        move(file, SUFFIXES)

    with pytest.raises(StateError, match=r"moved .* may be lost"):
        await store.write(add)
    await store.write(state.prompts.add, "", "after", [])
    assert texts(file) == {"after"}
    await store.close()


async def test_who_reads_what_was_moved_holds_up_nobody(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "before", [])
    is_reading, may_end = threading.Event(), threading.Event()

    def read(connection: Connection) -> None:
        state.prompts.list_all(connection, "")
        is_reading.set()
        assert may_end.wait(30)

    async def wait() -> None:
        with pytest.raises(StateError, match="moved"):
            await store.read(read)

    reading = asyncio.create_task(wait())
    assert await asyncio.to_thread(is_reading.wait, 30)
    move(file, SUFFIXES)
    await store.write(state.prompts.add, "", "after", [])
    may_end.set()
    await reading
    await store.write(state.prompts.add, "", "later", [])
    assert texts(file) == {"after", "later"}
    await store.close()
    assert texts(file) == {"after", "later"}


@pytest.mark.parametrize("is_copy", [True, False])
async def test_a_damaged_file_is_mended_while_the_server_runs(file: Path, is_copy: bool) -> None:
    store = State(ServerSettings(), file)
    for _ in range(20):
        await store.write(state.prompts.add, "", "x" * 50_000, [])
    await store.close()
    shutil.copy(file, file.with_name("copy"))
    store = State(ServerSettings(), file)
    await store.read(lambda connection: None)
    damage_middle(file)
    with pytest.raises(StateError, match="damaged"):
        await store.read(state.prompts.list_all, "")
    file.rename(file.with_name("damaged"))
    if is_copy:
        shutil.copy(file.with_name("copy"), file)
    await store.write(state.prompts.add, "", "after", [])
    assert len(await store.read(state.prompts.list_all, "")) == (21 if is_copy else 1)
    await store.close()


async def test_a_file_that_is_moved_while_it_is_opened_is_not_taken(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move_then(url: None, file: Path, max_bytes: int) -> Engine:
        engine = open_database(url, file, max_bytes)
        if not (file.parent.parent / "away").exists():
            move(file, SUFFIXES)
        return engine

    monkeypatch.setattr(connections, "open_database", move_then)
    store = State(ServerSettings(), file)
    with pytest.raises(StateError, match="moved"):
        await store.write(state.prompts.add, "", "meanwhile", [])
    await store.write(state.prompts.add, "", "after", [])
    assert texts(file) == {"after"}
    await store.close()


async def test_a_file_that_was_moved_is_whole_when_the_server_ends(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "before", [])
    move(file, ("",))
    await store.close()
    assert texts(file.parent.parent / "away" / file.name) == {"before"}
    assert [each.name for each in file.parent.iterdir()] == ["puna.db-reserve"]
