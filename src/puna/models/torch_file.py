"""Reading tensors from a file that ``torch.save`` wrote, without PyTorch and without running anything in it.

The file is a zip archive: ``data.pkl`` describes the tensors, ``data/0``, ``data/1``, ... hold their
bytes. Those are mapped and viewed in place. Has the same face as `puna.models.safetensors.SafetensorsFile`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.files import map_file
from puna.models.torch_pickle import StridedTensor, read_pickle
from puna.models.zip_file import Member, read_members

__all__ = ["TorchEntry", "TorchFile"]

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TorchEntry:
    """Where one tensor lies.

    Attributes:
        dtype: what an element is, in safetensors' words, ``BF16``.
        shape: elements along each axis.
        strides: elements from one to the next along each axis.
        start: offset of the first element in the file, in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int


class TorchFile:
    """A file that ``torch.save`` wrote, mapped read-only, every tensor's place checked.

    Attributes:
        path: the file.
        entries: every tensor by name.
    """

    def __init__(self, path: Path) -> None:
        """Map a file and read what tensors it holds.

        Args:
            path: a file with a dictionary of tensors, or with one under ``model``.

        Raises:
            CheckpointError: the file cannot be read, is damaged, holds anything but tensors, or was
                written by a PyTorch older than 1.6.
        """
        self.path = path
        self._bytes = map_file(path)
        if self._bytes[:2].tobytes() != b"PK":
            raise CheckpointError(
                f"{path} needs to be a zip archive as PyTorch writes since 1.6, it begins with "
                f"{self._bytes[:8].tobytes()!r}; load it with the PyTorch that wrote it and save it again"
            )
        members = read_members(self._bytes, str(path))
        folder = _folder(path, members)
        self._check_byte_order(members, folder)
        self.entries = {
            name: _entry(path, name, tensor, members, folder)
            for name, tensor in _tensors(path, self._pickle(members[f"{folder}/data.pkl"])).items()
        }

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor in C order, ``[bytes]``, read-only; KeyError where there is none.

        A view into the file; a copy where the tensor is stored in another order.
        """
        entry = self.entries[name]
        item = _ITEM_BYTES[entry.dtype]
        if _is_contiguous(entry.shape, entry.strides):
            return self._bytes[entry.start : entry.start + math.prod(entry.shape) * item]
        n_bytes = _extent(entry.shape, entry.strides) * item
        elements = self._bytes[entry.start : entry.start + n_bytes].view(f"V{item}")
        # The step along an axis of one element means nothing, and may be of any size.
        strides = [
            step * item if size > 1 else 0 for size, step in zip(entry.shape, entry.strides, strict=True)
        ]
        strided = np.lib.stride_tricks.as_strided(elements, entry.shape, strides, writeable=False)
        data = np.ascontiguousarray(strided).view(np.uint8).reshape(-1)
        data.flags.writeable = False
        return data

    def _pickle(self, member: Member) -> Any:
        return read_pickle(self._bytes[member.start : member.start + member.n_bytes], str(self.path))

    def _check_byte_order(self, members: dict[str, Member], folder: str) -> None:
        # Files from before PyTorch 2.1 do not say.
        member = members.get(f"{folder}/byteorder")
        if member is None:
            return
        order = self._bytes[member.start : member.start + min(member.n_bytes, 20)].tobytes()
        if order != b"little":
            raise CheckpointError(f"{self.path}: the byte order must be b'little', got {order!r}")


def _folder(path: Path, members: dict[str, Member]) -> str:
    """The one folder that PyTorch puts everything in."""
    folders = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(folders) != 1 or "/" in folders[0]:
        raise CheckpointError(
            f"{path} needs one pickle `data.pkl` in one folder, as torch.save writes it, got {len(folders)}"
        )
    return folders[0]


def _tensors(path: Path, value: Any) -> dict[str, StridedTensor]:
    if type(value) is dict and type(value.get("model")) is dict:
        value = value["model"]
    if type(value) is not dict:
        raise CheckpointError(f"{path} needs a dictionary of tensors, got a {type(value).__name__}")
    for name, tensor in value.items():
        if type(tensor) is not StridedTensor:
            raise CheckpointError(f"{path}: {name!r:.100} must be a tensor, got a {type(tensor).__name__}")
    return value


def _entry(
    path: Path, name: str, tensor: StridedTensor, members: dict[str, Member], folder: str
) -> TorchEntry:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    item = _ITEM_BYTES[storage.dtype]
    member = members.get(f"{folder}/data/{storage.key}")
    if member is None:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100} needs storage {storage.key!r:.100}, which is not there"
        )
    if storage.n_elements * item > member.n_bytes:
        raise CheckpointError(
            f"{path}: storage {storage.key!r:.100} needs {storage.n_elements * item} bytes, "
            f"got {member.n_bytes}; the file is damaged"
        )
    # The second condition keeps a copy of a tensor, made to order its elements, from outgrowing the file.
    if tensor.offset + _extent(shape, strides) > storage.n_elements or math.prod(shape) > storage.n_elements:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100} of shape {shape}, steps {strides} and offset {tensor.offset} "
            f"does not fit its storage of {storage.n_elements} elements"
        )
    start = member.start + tensor.offset * item
    return TorchEntry(storage.dtype, shape, strides, start)


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first in the storage to behind the last, 0 where there is none."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for size, step in zip(shape[::-1], strides[::-1], strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True
