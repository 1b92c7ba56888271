"""The safetensors format: a JSON header that says where each tensor lies, then the tensors' bytes.

Reading maps the file and checks the header in full before any of it is used. Writing streams one
tensor at a time and leaves either the whole file or none.

Source: https://github.com/huggingface/safetensors, README, section "Format".
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError, StoreError
from puna.models.files import map_file, parse_json_object

__all__ = ["Entry", "NewTensor", "SafetensorsFile", "write_safetensors"]

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_DIMS = 8
_ALIGNMENT = 64  # bytes: one cache line, and the widest vector register
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies.

    Attributes:
        dtype: the format's word for an element, ``BF16``.
        shape: elements along each axis.
        start: offset of the first byte in the file.
        end: offset behind the last byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """A safetensors file, mapped read-only, its header checked.

    Attributes:
        path: the file.
        metadata: the header's free text, by key.
        entries: every tensor by name, in the order of the bytes.
    """

    def __init__(self, path: Path) -> None:
        """Map a file and check its header.

        Args:
            path: the file.

        Raises:
            CheckpointError: the file cannot be read, or its header is not consistent with itself and the
                file's length.
        """
        self.path = path
        self._bytes = map_file(path)
        header, data_start = _header(path, self._bytes)
        self.metadata = _metadata(path, header.pop("__metadata__", {}))
        entries = {name: _entry(path, name, raw, data_start) for name, raw in header.items()}
        self.entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
        _check_tiling(path, self.entries, data_start, self._bytes.size)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor, ``[bytes]``, a read-only view; KeyError where there is none."""
        entry = self.entries[name]
        return self._bytes[entry.start : entry.end]


def _header(path: Path, data: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8].tobytes(), "little")
    limit = min(_MAX_HEADER_BYTES, data.size - 8)
    if not 2 <= length <= limit:
        raise CheckpointError(
            f"{path}: a safetensors header of this file needs 2 to {max(limit, 2)} bytes, got {length}; "
            "the file is damaged or not safetensors"
        )
    try:
        text = data[8 : 8 + length].tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: the safetensors header is not UTF-8") from error
    return parse_json_object(text, f"{path}: safetensors header"), 8 + length


def _metadata(path: Path, raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise CheckpointError(f"{path}: `__metadata__` must map text to text, got {raw!r:.200}")
    return raw


def _entry(path: Path, name: str, raw: object, data_start: int) -> Entry:
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100} needs `dtype`, `shape` and `data_offsets`, got {raw!r:.200}"
        )
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100} has dtype {dtype!r:.50}, known: {', '.join(_ITEM_BYTES)}"
        )
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100} needs at most {_MAX_DIMS} whole sizes from 0, got {shape!r:.100}"
        )
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100} needs 2 whole offsets from 0, got {offsets!r:.100}"
        )
    needed = math.prod(shape) * _ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise CheckpointError(
            f"{path}: tensor {name!r:.100}, {dtype} of shape {shape}, needs {needed} bytes, "
            f"got offsets {offsets}"
        )
    return Entry(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_tiling(path: Path, entries: Mapping[str, Entry], data_start: int, file_bytes: int) -> None:
    """The tensors must cover the data area once, with no gap and nothing behind the last."""
    position = data_start
    for name, entry in entries.items():
        if entry.start != position:
            raise CheckpointError(
                f"{path}: tensor {name!r:.100} must begin at byte {position - data_start} of the data, right "
                f"behind the one before, got {entry.start - data_start}"
            )
        position = entry.end
    if position != file_bytes:
        raise CheckpointError(
            f"{path}: the tensors need a file of {position} bytes, got {file_bytes}; "
            "the download may be incomplete"
        )


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to be written.

    Attributes:
        name: its name in the file.
        dtype: the format's word for an element, ``BF16``.
        shape: elements along each axis.
        produce: makes the contents, ``[bytes]`` or any array of that many bytes; called once, when
            it is the tensor's turn, so that only one is in memory.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    produce: Callable[[], NDArray[Any]]

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_safetensors(path: Path, tensors: Iterable[NewTensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, all of it or none.

    The data area begins at a multiple of 64 bytes; tensors follow one another without padding, as the
    format demands, so that each is aligned where all sizes are multiples of 64.

    Args:
        path: the file; one that is already there is replaced at the end.
        tensors: what to write, in this order.
        metadata: free text for the header.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
        CheckpointError: a producer made another number of bytes than its shape calls for.
    """
    tensors = list(tensors)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(_new_header(tensors, metadata))
            for tensor in tensors:
                _write_tensor(file, path, tensor)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _new_header(tensors: Iterable[NewTensor], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for tensor in tensors:
        assert tensor.name not in header, f"tensor {tensor.name!r} is written twice"
        end = position + tensor.n_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(file: BinaryIO, path: Path, tensor: NewTensor) -> None:
    contents = np.ascontiguousarray(tensor.produce())
    if contents.nbytes != tensor.n_bytes:
        raise CheckpointError(
            f"{path}: tensor {tensor.name!r} needs {tensor.n_bytes} bytes, got {contents.nbytes}"
        )
    file.write(contents.reshape(-1).view(np.uint8).data)
