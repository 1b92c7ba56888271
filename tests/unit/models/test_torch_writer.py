"""Files that PyTorch reads, written without it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from puna.errors import CheckpointError, StoreError
from puna.models.safetensors import NewTensor
from puna.models.torch_file import TorchFile
from puna.models.torch_writer import write_torch

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, tuple[str, NDArray[Any], torch.dtype]] = {
    "layers.0.w.weight": ("I8", RANDOM.integers(-128, 128, (5, 7), np.int8), torch.int8),
    "scales": ("F32", RANDOM.standard_normal((300, 1)).astype(np.float32), torch.float32),
    "norm": ("BF16", RANDOM.integers(0, 2**14, 9).astype(np.uint16), torch.bfloat16),
    "half": ("F16", RANDOM.standard_normal((2, 3, 4)).astype(np.float16), torch.float16),
    "one": ("F32", np.float32(3)[...], torch.float32),
    "none": ("I8", np.zeros((0, 3), np.int8), torch.int8),
    "größe": ("F32", np.ones((1, 1), np.float32), torch.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_torch(
        tmp_path / "x.pth",
        [NewTensor(name, dtype, a.shape, lambda a=a: a) for name, (dtype, a, _) in ARRAYS.items()],
    )
    return tmp_path / "x.pth"


@pytest.mark.parametrize("is_mapped", [False, True])
def test_pytorch_reads_it(path: Path, is_mapped: bool) -> None:
    loaded = torch.load(path, weights_only=True, mmap=is_mapped)
    assert list(loaded) == list(ARRAYS)
    for name, (_, array, dtype) in ARRAYS.items():
        assert (loaded[name].dtype, tuple(loaded[name].shape)) == (dtype, array.shape)
        assert loaded[name].view(torch.uint8 if array.itemsize == 1 else dtype).is_contiguous()
        assert bytes(loaded[name].clone().untyped_storage()) == array.tobytes()


def test_the_archive_is_sound_and_every_tensor_aligned(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("consolidated/version") == b"3\n"
    file = TorchFile(path)
    assert [entry.start % 64 for entry in file.entries.values()] == [0] * len(ARRAYS)
    for name, (dtype, array, _) in ARRAYS.items():
        assert file.entries[name].dtype == dtype
        assert file.data(name).tobytes() == array.tobytes()


def test_it_is_the_same_file_each_time(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pth"
    write_torch(
        again, [NewTensor(name, dtype, a.shape, lambda a=a: a) for name, (dtype, a, _) in ARRAYS.items()]
    )
    assert again.read_bytes() == path.read_bytes()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    wrong = NewTensor("w", "F32", (2, 2), lambda: np.zeros(3, np.float32))
    with pytest.raises(CheckpointError, match=r"'w' needs 16 bytes as F32 of shape \(2, 2\), got 12"):
        write_torch(tmp_path / "x.pth", [wrong])
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        write_torch(tmp_path / "none" / "x.pth", [])
