"""The GGUF container, written: `write_gguf_file`, the other half of `puna.models.gguf_file`.

One tensor is in memory at a time.

Source: https://github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.blocks import bytes_of

__all__ = ["GgufTensor", "Value", "write_gguf_file"]

Value = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]
"""Numbers become uint32 and float32, those in lists int32 and float32."""

_VERSION = 3
_ALIGNMENT = 32  # the format's default
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
# The numbers of those types that the reader knows.
_STORAGE = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "BF16": 30,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor to be written.

    Attributes:
        name: its name in the file.
        dtype: GGUF's word for the storage.
        shape: elements, the rows first.
        produce: makes the bytes; called once, when it is the tensor's turn.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    produce: Callable[[], NDArray[Any]]

    @property
    def n_bytes(self) -> int:
        """Size in the file, padding included."""
        return _padded(bytes_of(self.dtype, self.shape))


def write_gguf_file(path: Path, metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> None:
    """Write a file.

    Args:
        path: where; there must be nothing yet.
        metadata: the keys, in their order.
        tensors: in the order of the file.

    Raises:
        CheckpointError: a text cannot be written as UTF-8, or a tensor has another number of bytes than its
            shape calls for.
        OSError: the file cannot be written.
    """
    with path.open("xb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + _value(value))
        file.write(_directory(tensors))
        file.write(bytes(_padded(file.tell()) - file.tell()))
        for tensor in tensors:
            _write_tensor(file, tensor)
        file.flush()
        os.fsync(file.fileno())


def _directory(tensors: Sequence[GgufTensor]) -> bytes:
    lines, offset = [], 0
    for tensor in tensors:
        axes = tensor.shape[::-1]  # the format counts the fastest axis first
        lines.append(_text(tensor.name) + struct.pack("<I", len(axes)) + struct.pack(f"<{len(axes)}Q", *axes))
        lines.append(struct.pack("<IQ", _STORAGE[tensor.dtype], offset))
        offset += tensor.n_bytes
    return b"".join(lines)


def _write_tensor(file: BinaryIO, tensor: GgufTensor) -> None:
    contents = np.ascontiguousarray(tensor.produce())
    needed = bytes_of(tensor.dtype, tensor.shape)
    if contents.nbytes != needed:
        raise CheckpointError(f"tensor {tensor.name!r} needs {needed} bytes, got {contents.nbytes}")
    file.write(contents.reshape(-1).view(np.uint8).data)
    file.write(bytes(tensor.n_bytes - needed))


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{text!r:.100} holds half a surrogate pair, which GGUF's UTF-8 cannot say; write Hugging Face's "
            "layout instead"
        ) from error
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    match value:
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case bool():  # before int, which a bool is too
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _U32, value)
        case float():
            return struct.pack("<If", _F32, value)
    return struct.pack("<I", _ARRAY) + _array(value)


def _array(items: Sequence[str] | Sequence[int] | Sequence[float]) -> bytes:
    if all(isinstance(item, str) for item in items):
        texts = b"".join(_text(str(item)) for item in items)
        return struct.pack("<IQ", _STRING, len(items)) + texts
    kind, letter = (_I32, "i") if all(isinstance(item, int) for item in items) else (_F32, "f")
    return struct.pack(f"<IQ{len(items)}{letter}", kind, len(items), *items)
