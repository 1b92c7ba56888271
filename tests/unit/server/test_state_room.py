"""A disk that is full: what is not needed any more can be deleted, and then there is room again."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.unit.server.test_retention import until

from puna.server import state
from puna.server.errors import ApiError
from puna.server.settings import ServerSettings
from puna.server.state import room, upkeep
from puna.server.state.store import State

Usage = namedtuple("Usage", "free")


class Disk:
    """The disk as it says that it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 10**9
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(self.free))
        write_bytes = Path.write_bytes

        def write(path: Path, data: bytes) -> int:
            if len(data) > self.free:
                write_bytes(path, data[:1000])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_bytes(path, data)

        monkeypatch.setattr(Path, "write_bytes", write)


async def test_a_full_disk_has_room_for_what_is_deleted_and_for_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, reserve, store = Disk(monkeypatch), file.with_name("puna.db-reserve"), State(ServerSettings(), file)
    await store.read(state.prompts.list_all, "")
    assert not reserve.exists()
    made = [await store.write(state.prompts.add, "", "hum", []) for _ in range(2)]
    assert (reserve.stat().st_size, reserve.stat().st_mode & 0o777) == (room._RESERVE_BYTES, 0o600)

    def remove(connection: Connection, number: int, has_room: bool) -> None:
        state.prompts.remove(connection, "", made[number].id)
        assert reserve.exists() is not has_room

    await store.delete(remove, 0, False)
    disk.free = 1000
    await store.delete(remove, 1, True)
    with pytest.raises(ApiError, match="no room") as caught:
        await store.write(state.prompts.add, "", "hum", [])
    assert (caught.value.status_code, caught.value.code) == (507, "state_full")
    assert not reserve.exists()
    disk.free = 10**9
    await store.write(state.prompts.add, "", "hum", [])
    assert reserve.stat().st_size == room._RESERVE_BYTES
    await store.close()


async def test_a_database_is_opened_on_a_full_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, reserve = Disk(monkeypatch), file.with_name("puna.db-reserve")
    store = State(ServerSettings(), file)
    made = await store.write(state.prompts.add, "", "hum", [])
    await store.close()
    disk.free = 1000
    store = State(ServerSettings(), file)
    assert await store.read(state.prompts.list_all, "") == [made]
    assert not reserve.exists()
    await store.close()


async def test_what_looks_after_the_database_has_the_room_too(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_DELAY_S", 0.0)
    disk, reserve = Disk(monkeypatch), file.with_name("puna.db-reserve")
    store = State(ServerSettings(), file)
    made = await store.write(state.prompts.add, "", "hum", [])
    await store.delete(state.prompts.remove, "", made.id)
    assert reserve.exists()
    disk.free = 1000
    await until(lambda: not reserve.exists())
    await store.close()
