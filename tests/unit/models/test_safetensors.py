from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

from puna.errors import CheckpointError, StoreError
from puna.models.safetensors import NewTensor, SafetensorsFile, write_safetensors


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    listed = [list(x) if isinstance(x, tuple) else x for x in (shape, offsets)]
    return {"dtype": dtype, "shape": listed[0], "data_offsets": listed[1]}


def test_reads_what_the_safetensors_package_writes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5, dtype=torch.bfloat16),
        "a": torch.randn(7, dtype=torch.float32),
        "half": torch.randn(2, 2, 2, dtype=torch.float16),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "x", {"format": "pt"})
    file = SafetensorsFile(tmp_path / "x")
    assert file.metadata == {"format": "pt"}
    assert file.entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert file.entries[name].shape == tuple(tensor.shape)
        assert file.data(name).tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert not file.data(name).flags.writeable
    assert {name: e.dtype for name, e in file.entries.items()} == {
        "b": "BF16", "a": "F32", "half": "F16", "scalar": "I64", "empty": "F32", "bytes": "U8",
    }  # fmt: skip


def test_the_safetensors_package_reads_what_is_written(tmp_path: Path) -> None:
    arrays = {
        "w": np.random.default_rng(3).standard_normal((3, 5)).astype(np.float32),
        "packed": np.arange(64, dtype=np.uint8),
        "empty": np.zeros((0, 2), np.float16),
    }
    dtypes = {"w": "F32", "packed": "U8", "empty": "F16"}
    path = tmp_path / "model.safetensors"
    write_safetensors(
        path,
        (NewTensor(name, dtypes[name], a.shape, lambda a=a: a) for name, a in arrays.items()),
        {"scheme": "q4"},
    )
    loaded = load_file(path)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"scheme": "q4"}
    ours = SafetensorsFile(path)
    assert ours.metadata == {"scheme": "q4"}
    assert next(iter(ours.entries.values())).start % 64 == 0
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_tensors_are_produced_one_at_a_time_and_in_order(tmp_path: Path) -> None:
    calls: list[str] = []

    def producer(name: str) -> Callable[[], np.ndarray[Any, Any]]:
        return lambda: (calls.append(name), np.full(4, len(calls), np.uint8))[1]

    write_safetensors(tmp_path / "x", [NewTensor(n, "U8", (4,), producer(n)) for n in "cab"], {})
    assert calls == ["c", "a", "b"]
    assert SafetensorsFile(tmp_path / "x").data("b").tolist() == [3, 3, 3, 3]


def _fails() -> np.ndarray[Any, Any]:
    raise KeyboardInterrupt


@pytest.mark.parametrize("produce", [_fails, lambda: np.zeros(5, np.uint8)])
def test_nothing_half_written_stays(tmp_path: Path, produce: Callable[[], np.ndarray[Any, Any]]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"the file before")
    tensors = [
        NewTensor("good", "U8", (4,), lambda: np.zeros(4, np.uint8)),
        NewTensor("bad", "U8", (4,), produce),
    ]
    with pytest.raises((KeyboardInterrupt, CheckpointError)) as caught:
        write_safetensors(path, tensors, {})
    assert path.read_bytes() == b"the file before"
    assert os.listdir(tmp_path) == ["x"]
    if caught.type is CheckpointError:
        assert str(caught.value) == f"{path}: tensor 'bad' needs 4 bytes, got 5"


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="x cannot be written: No space left on device"):
        write_safetensors(tmp_path / "x", [], {})
    assert os.listdir(tmp_path) == []


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty file": (lambda p: p.write_bytes(b""), "is empty"),
    "shorter than the length": (lambda p: p.write_bytes(b"\x08\0\0"), "got 8"),
    "header past the end": (lambda p: write(p, {}, length=3), "needs 2 to 2 bytes, got 3"),
    "header of 2^64-1 bytes": (lambda p: write(p, {}, length=2**64 - 1), "got 18446744073709551615"),
    "header of no bytes": (lambda p: write(p, b"{}", length=0), "got 0"),
    "not UTF-8": (lambda p: write(p, b'{"\xff":1}'), "is not UTF-8"),
    "not JSON": (lambda p: write(p, b"{nope}"), "not valid JSON"),
    "nested deeply": (lambda p: write(p, b'{"a":' + b"[" * 200_000), "may be nested 64 deep, it is deeper"),
    "huge number": (lambda p: write(p, b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "a list": (lambda p: write(p, []), "needs a JSON object, got list"),
    "duplicate name": (
        lambda p: write(p, b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
        "the key 'a' is given twice",
    ),
    "duplicate offsets": (
        lambda p: write(p, b'{"a":{"dtype":"U8","shape":[1],"shape":[0],"data_offsets":[0,0]}}'),
        "the key 'shape' is given twice",
    ),
    "metadata a list": (lambda p: write(p, {"__metadata__": []}), "must map text to text"),
    "metadata of numbers": (lambda p: write(p, {"__metadata__": {"a": 1}}), "must map text to text"),
    "entry a number": (lambda p: write(p, {"a": 1}), "needs `dtype`, `shape` and `data_offsets`, got 1"),
    "no shape": (lambda p: write(p, {"a": {"dtype": "U8", "data_offsets": [0, 0]}}), "needs `dtype`"),
    "extra key": (lambda p: write(p, {"a": {**entry(), "x": 1}}), "needs `dtype`"),
    "unknown dtype": (lambda p: write(p, {"a": entry("F99")}), "has dtype 'F99', known: BOOL, U8"),
    "dtype a list": (lambda p: write(p, {"a": entry([])}), "has dtype"),
    "shape a number": (lambda p: write(p, {"a": entry(shape=2)}), "whole sizes from 0, got 2"),
    "negative size": (lambda p: write(p, {"a": entry(shape=(-2,))}), "whole sizes from 0"),
    "fractional size": (lambda p: write(p, {"a": entry(shape=(2.0,))}), "whole sizes from 0"),
    "boolean size": (lambda p: write(p, {"a": entry(shape=(True, 2))}), "whole sizes from 0"),
    "nine axes": (lambda p: write(p, {"a": entry(shape=(1,) * 9)}), "at most 8 whole sizes"),
    "product wraps": (
        lambda p: write(p, {"a": entry(shape=(2**62, 4, 1))}),
        "needs 73786976294838206464 bytes, got offsets",
    ),
    "one offset": (lambda p: write(p, {"a": entry(offsets=(0,))}), "needs 2 whole offsets"),
    "negative offset": (lambda p: write(p, {"a": entry(offsets=(-8, 0))}), "needs 2 whole offsets"),
    "offsets backwards": (lambda p: write(p, {"a": entry(offsets=(8, 0))}, bytes(8)), "got offsets [8, 0]"),
    "size differs": (
        lambda p: write(p, {"a": entry(shape=(3,))}, bytes(8)),
        "F32 of shape [3], needs 12 bytes, got offsets [0, 8]",
    ),
    "past the end": (lambda p: write(p, {"a": entry()}, bytes(7)), "the tensors need a file of"),
    "far past the end": (
        lambda p: write(p, {"a": entry(shape=(2**60,), offsets=(0, 2**62))}, bytes(8)),
        "the tensors need a file of",
    ),
    "bytes behind": (lambda p: write(p, {"a": entry()}, bytes(9)), "the download may be incomplete"),
    "hole at the start": (
        lambda p: write(p, {"a": entry(offsets=(8, 16))}, bytes(16)),
        "'a' must begin at byte 0 of the data, right behind the one before, got 8",
    ),
    "hole": (
        lambda p: write(p, {"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
        "'b' must begin at byte 8 of the data, right behind the one before, got 12",
    ),
    "overlap": (
        lambda p: write(p, {"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
        "'b' must begin at byte 8 of the data, right behind the one before, got 4",
    ),
    "same place twice": (lambda p: write(p, {"a": entry(), "b": entry()}, bytes(8)), "must begin at byte 8"),
    "LFS pointer": (
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS pointer",
    ),
    "web page": (lambda p: p.write_bytes(b"\n<!DOCTYPE html><html>"), "is a web page"),
    "a folder": (lambda p: p.mkdir(), "cannot be read: Is a directory"),
    "not there": (lambda p: None, "cannot be read: No such file or directory"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    make, words = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_writer_refuses_sizes_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
        write_safetensors(tmp_path / "nowhere" / "x", [], {})
