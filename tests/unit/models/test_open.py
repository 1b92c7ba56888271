from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from puna.errors import CheckpointError
from puna.models.open import open_checkpoint


def test_a_gguf_file_under_any_name(tmp_path: Path, write_gguf: Any) -> None:
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.of-some-kind"))
    assert (checkpoint.kind, checkpoint.path) == ("GGUF", tmp_path / "model.of-some-kind")


def test_a_folder_with_one_gguf_file(tmp_path: Path, write_gguf: Any) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    (tmp_path / "README.md").write_text("about it")
    assert open_checkpoint(tmp_path).path == path


def test_a_hugging_face_folder(hf_folder: Path) -> None:
    checkpoint = open_checkpoint(hf_folder)
    assert (checkpoint.kind, checkpoint.path) == ("Hugging Face", hf_folder)


def _write(name: str, data: bytes = b"") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def _folder_with(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for name in names:
            (folder / name).write_bytes(b"x")
        return folder

    return make


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda f: f / "nowhere", "nowhere does not exist; give the path of a GGUF file, or a folder"),
    "a prompt": (lambda f: f / ("why " * 200), "cannot be read: File name too long"),
    "an empty folder": (lambda f: f, "is empty; give the path of"),
    "an empty file": (_write("m.gguf"), "is not a model file, it begins with b''"),
    "text": (_write("notes.txt", b"Dear diary"), "is not a model file, it begins with b'Dear dia'"),
    "a pickle of PyTorch": (
        _write("pytorch_model.bin", b"PK\x03\x04zip"),
        "holds tensors only; give its folder, which also has config.json or params.json",
    ),
    "an old pickle of PyTorch": (
        _write("consolidated.00.pth", b"\x80\x02}"),
        "holds tensors only; give its folder",
    ),
    "tensors alone": (_write("model.safetensors", bytes(8)), "holds tensors only; give its folder"),
    "a pointer": (_write("m.gguf", b"version https://git-lfs.github.com/spec/v1"), "is a Git LFS pointer"),
    "a web page": (_write("m.gguf", b"  <!doctype HTML>"), "is a web page, not a model file"),
    "two GGUF files": (
        _folder_with("b.gguf", "a.gguf"),
        "holds 2 GGUF files; give the path of one: a.gguf, b.gguf",
    ),
    "pickles alone": (
        _folder_with("consolidated.00.pth"),
        "holds no config.json, no params.json and no GGUF",
    ),
    "params alone": (_folder_with("params.json"), "params.json: not valid JSON"),
    "another folder": (_folder_with("README.md"), "holds no config.json, no params.json and no GGUF file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused(tmp_path: Path, case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(make(tmp_path))
    assert words in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(CheckpointError, match="closed cannot be read: Permission denied"):
        open_checkpoint(tmp_path / "closed")
