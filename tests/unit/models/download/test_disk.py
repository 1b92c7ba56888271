"""Disks that are full and folders that are not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.unit.models.download.lying import CONTENT, N, Server, fetch, part_of

from puna.errors import StoreError
from puna.models import download as module
from puna.models import room


def test_a_disk_without_room_is_seen_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    part_of(tmp_path).write_bytes(CONTENT[: N - 1001])
    with pytest.raises(
        StoreError, match="needs 1001 bytes more, the disk has 1000 free; make room, or use a folder"
    ):
        fetch(server.url, tmp_path)
    assert server.requests == []


def test_a_disk_that_fills_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module._Fetch, "_write", write)
    with pytest.raises(
        StoreError, match=r"file\.whl\.part cannot be written: No space left on device"
    ) as caught:
        fetch(server.url, tmp_path)
    assert caught.type is StoreError
    assert len(server.requests) == 1


def test_a_folder_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
        fetch(server.url, tmp_path / "nowhere")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_in_place_of_the_part_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    part_of(tmp_path).symlink_to(tmp_path / "mine")
    fetch(server.url, tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "file.whl").is_symlink()
    assert (tmp_path / "file.whl").read_bytes() == CONTENT
