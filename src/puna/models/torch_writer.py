"""Writing a dictionary of tensors as ``torch.save`` does, without PyTorch: `write_torch`.

The file is a zip archive of stored members: ``data.pkl`` describes the tensors, ``data/0``, ``data/1``, ...
hold their bytes, each at a multiple of 64 bytes so that it can be mapped. ``torch.load`` reads it with
``weights_only=True``. The pickle is of protocol 2 and has the few instructions that PyTorch itself writes.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError, StoreError
from puna.models.safetensors import NewTensor

__all__ = ["write_torch"]

_STORAGES = {
    "F32": b"FloatStorage", "BF16": b"BFloat16Storage", "F16": b"HalfStorage", "I8": b"CharStorage",
}  # fmt: skip
_FOLDER = "consolidated"
_ALIGNMENT = 64
_CHUNK_BYTES = 16 << 20


def write_torch(path: Path, tensors: Iterable[NewTensor]) -> None:
    """Write a file that ``torch.load(path, weights_only=True)`` reads as a dictionary of tensors.

    Args:
        path: the file to make, in a folder that becomes visible when all is written.
        tensors: what to write, in this order; float32, bfloat16, float16 or int8. One is in memory at a
            time.

    Raises:
        CheckpointError: a producer made another number of bytes than its shape calls for.
        StoreError: the disk is full or the folder cannot be written.
    """
    tensors = list(tensors)
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            _add(archive, "data.pkl", _raw(_pickle(tensors)))
            _add(archive, "byteorder", _raw(b"little"))
            for key, tensor in enumerate(tensors):
                _add(archive, f"data/{key}", _bytes_of(tensor))
            _add(archive, "version", _raw(b"3\n"))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def _raw(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _bytes_of(tensor: NewTensor) -> NDArray[np.uint8]:
    data = np.ascontiguousarray(tensor.produce())
    if data.nbytes != tensor.n_bytes:
        raise CheckpointError(
            f"tensor {tensor.name!r:.100} needs {tensor.n_bytes} bytes as {tensor.dtype} of shape "
            f"{tensor.shape}, got {data.nbytes}"
        )
    return data.reshape(-1).view(np.uint8)


def _add(archive: zipfile.ZipFile, name: str, data: NDArray[np.uint8]) -> None:
    member = zipfile.ZipInfo(f"{_FOLDER}/{name}")
    assert archive.fp is not None, "the archive is open"
    # Before the data come 30 bytes, the name, 20 bytes of sizes for large files, and padding of our own.
    begin = archive.fp.tell() + 30 + len(member.filename) + 20 + 4
    padding = -begin % _ALIGNMENT
    member.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding  # PyTorch's own mark and filler
    with archive.open(member, "w", force_zip64=True) as file:
        for start in range(0, len(data), _CHUNK_BYTES):
            file.write(data[start : start + _CHUNK_BYTES].tobytes())


def _pickle(tensors: list[NewTensor]) -> bytes:
    items = b"".join(_text(tensor.name) + _tensor(tensor, str(key)) for key, tensor in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."


def _tensor(tensor: NewTensor, key: str) -> bytes:
    """``_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)``."""
    strides = tuple(math.prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape)))
    storage = (
        b"(" + _text("storage") + _named(b"torch", _STORAGES[tensor.dtype]) + _text(key) + _text("cpu")
        + _whole(math.prod(tensor.shape)) + b"tQ"
    )  # fmt: skip
    no_hooks = _named(b"collections", b"OrderedDict") + b")R"
    arguments = storage + _whole(0) + _tuple(tensor.shape) + _tuple(strides) + b"\x89" + no_hooks
    return _named(b"torch._utils", b"_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def _named(module: bytes, name: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_whole, values)) + b"t"


def _whole(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    n_bytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n_bytes]) + value.to_bytes(n_bytes, "little", signed=True)
