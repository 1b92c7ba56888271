"""The GGUF container: key-value metadata, then a list of tensors, then their bytes.

This page knows the format and no model; `gguf.py` makes a Llama of what it finds. Nothing in the
file is believed: each length is compared with the bytes that are left before it is used.

Source: https://github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.blocks import bytes_of
from puna.models.files import map_file

__all__ = ["GgufFile", "TensorInfo", "is_gguf"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Far above any real file, and small enough that what is built from them fits in memory.
_MAX_KEYS = 65_536
_MAX_TENSORS = 65_536
_MAX_KEY_BYTES = 1_024
_MAX_NAME_BYTES = 64
_MAX_STRING_BYTES = 64 * 1024 * 1024
_MAX_ARRAY_ITEMS = 4_194_304  # of all arrays together; Llama 3's vocabulary has 540,000
_MAX_METADATA_BYTES = 256 * 1024 * 1024
_MAX_ALIGNMENT = 65_536
_DEFAULT_ALIGNMENT = 32

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", _BOOL: "<u1",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
# All of GGUF's words for storage, so that a type that is not read yet is refused by its name.
_STORAGE = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
    18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8",
    25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4",
}  # fmt: skip


def is_gguf(head: bytes) -> bool:
    """Whether a file that begins with these bytes is meant to be a GGUF file."""
    return head.startswith(_MAGIC)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        dtype: GGUF's word for the storage, ``Q4_0``.
        shape: elements, ``(out, in)`` or ``(dim,)``: the slowest axis first, the reverse of the file's order.
        start: offset of the first byte in the file.
        n_bytes: size.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


class GgufFile:
    """A GGUF file, mapped read-only, its metadata parsed and its tensor list checked.

    Attributes:
        path: the file.
        metadata: every key, with numbers, text, or lists of one of them.
        tensors: every tensor by the file's own name.
    """

    def __init__(self, path: Path) -> None:
        """Map a file, parse its metadata and check its list of tensors.

        Args:
            path: a little-endian GGUF file of version 2 or 3.

        Raises:
            CheckpointError: the file cannot be read, is damaged, or is of a kind that is not read.
        """
        self.path = path
        self._bytes = map_file(path)
        cursor = _Cursor(self._bytes, str(path))
        _check_version(cursor)
        n_tensors = cursor.count("tensors", _MAX_TENSORS)
        n_keys = cursor.count("metadata keys", _MAX_KEYS)
        self.metadata = _metadata(cursor, n_keys)
        alignment = _alignment(self.metadata, cursor)
        self.tensors = _tensors(cursor, n_tensors, alignment)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor, ``[bytes]``, a read-only view; KeyError where there is none."""
        info = self.tensors[name]
        return self._bytes[info.start : info.start + info.n_bytes]


class _Cursor:
    """Reads a GGUF header from its beginning and never past the end of the file."""

    def __init__(self, data: NDArray[np.uint8], source: str) -> None:
        self._view = data.data
        self.size = data.size
        self.source = source
        self.position = 0
        self._items_left = _MAX_ARRAY_ITEMS

    def error(self, text: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: {text}")

    def take(self, n_bytes: int, what: str) -> memoryview:
        left = self.size - self.position
        if n_bytes > left:
            raise self.error(
                f"{what} needs {n_bytes} bytes at offset {self.position}, got {left}; "
                "the file is cut short or damaged"
            )
        self.position += n_bytes
        return self._view[self.position - n_bytes : self.position]

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def count(self, what: str, limit: int) -> int:
        value = self.u64(f"the number of {what}")
        if value > limit:
            raise self.error(f"at most {limit} {what} are read, got {value}")
        return value

    def text(self, what: str, limit: int) -> str:
        length = self.count(f"bytes of {what}", limit)
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8") from error

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.text(f"`{key}`", _MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self._array(key)
        return self._numbers(kind, 1, key)[0]

    def _array(self, key: str) -> list[Any]:
        kind = self.u32(f"the item type of `{key}`")
        count = self.count(f"items of `{key}`", self._items_left)
        self._items_left -= count
        if kind == _ARRAY:
            raise self.error(f"`{key}` is an array of arrays, which no Llama needs")
        return self._texts(count, key) if kind == _STRING else self._numbers(kind, count, key)

    def _numbers(self, kind: int, count: int, key: str) -> list[Any]:
        if kind not in _NUMBERS:
            raise self.error(f"`{key}` has value type {kind}, known: 0 to {max(_NUMBERS)}")
        dtype = np.dtype(_NUMBERS[kind])
        items = np.frombuffer(self.take(count * dtype.itemsize, f"`{key}`"), dtype=dtype)
        if kind == _BOOL:
            if (items > 1).any():
                raise self.error(f"`{key}` needs booleans of 0 or 1, got {items.max()}")
            items = items.astype(np.bool_)
        return list(items.tolist())

    def _texts(self, count: int, key: str) -> list[str]:
        # A vocabulary has some 100,000 entries, so this loop does without the methods above.
        view, position, size, unpack = self._view, self.position, self.size, _U64.unpack_from
        texts: list[str] = []
        try:
            for _ in range(count):
                start = position + 8
                position = start + unpack(view, position)[0]
                if position > size:
                    raise self.error(f"item {len(texts)} of `{key}` reaches past the end of the file")
                texts.append(str(view[start:position], "utf-8"))
        except struct.error as error:
            raise self.error(f"`{key}` needs {count} items, the file ends after {len(texts)}") from error
        except UnicodeDecodeError as error:
            raise self.error(f"item {len(texts)} of `{key}` is not UTF-8") from error
        self.position = position
        return texts


def _check_version(cursor: _Cursor) -> None:
    magic = bytes(cursor.take(4, "the magic number"))
    if magic != _MAGIC:
        raise cursor.error(f"a GGUF file begins with {_MAGIC!r}, got {magic!r}")
    version = cursor.u32("the version")
    if version in _VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise cursor.error("the GGUF file is big-endian; Puna reads little-endian files only")
    raise cursor.error(
        f"GGUF version must be one of {_VERSIONS}, got {version}; convert the model again with a current tool"
    )


def _metadata(cursor: _Cursor, n_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.text("a key", _MAX_KEY_BYTES)
        if key in metadata:
            raise cursor.error(f"the key {key!r} is given twice")
        metadata[key] = cursor.value(cursor.u32(f"the type of `{key}`"), key)
        if cursor.position > _MAX_METADATA_BYTES:
            raise cursor.error(f"at most {_MAX_METADATA_BYTES} bytes of metadata are read, got more")
    return metadata


def _alignment(metadata: dict[str, Any], cursor: _Cursor) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    # bool is an int, and True is a power of two.
    if type(value) is not int or not 8 <= value <= _MAX_ALIGNMENT or value & (value - 1):
        raise cursor.error(
            f"`general.alignment` must be a power of two from 8 to {_MAX_ALIGNMENT}, got {value!r:.50}"
        )
    return value


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    listed: dict[str, TensorInfo] = {}
    for _ in range(count):
        name = cursor.text("a tensor name", _MAX_NAME_BYTES)
        if name in listed:
            raise cursor.error(f"the tensor {name!r} is listed twice")
        listed[name] = _tensor_info(cursor, name, alignment)
    data_start = -(-cursor.position // alignment) * alignment
    tensors = {
        name: TensorInfo(info.dtype, info.shape, data_start + info.start, info.n_bytes)
        for name, info in listed.items()
    }
    _check_places(cursor, tensors)
    return tensors


def _tensor_info(cursor: _Cursor, name: str, alignment: int) -> TensorInfo:
    """One row of the tensor list; ``start`` still counts from the beginning of the data."""
    n_dims = cursor.u32(f"the axes of {name!r}")
    if not 1 <= n_dims <= 4:
        raise cursor.error(f"the tensor {name!r} needs 1 to 4 axes, got {n_dims}")
    shape = tuple(cursor.u64(f"the shape of {name!r}") for _ in range(n_dims))[::-1]
    if not 1 <= math.prod(shape) < 2**63:
        raise cursor.error(
            f"the tensor {name!r} needs sizes of at least 1 that can be addressed, got {shape}"
        )
    storage = cursor.u32(f"the type of {name!r}")
    try:
        dtype = _STORAGE.get(storage, f"number {storage}")
        n_bytes = bytes_of(dtype, shape)
    except CheckpointError as error:
        raise cursor.error(f"the tensor {name!r}: {error}") from None
    offset = cursor.u64(f"the offset of {name!r}")
    if offset % alignment:
        raise cursor.error(f"the tensor {name!r} needs an offset that {alignment} divides, got {offset}")
    return TensorInfo(dtype, shape, offset, n_bytes)


def _check_places(cursor: _Cursor, tensors: dict[str, TensorInfo]) -> None:
    position, before = 0, "the header"
    for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
        if info.start < position:
            raise cursor.error(f"the tensor {name!r} overlaps {before!r}")
        position, before = info.start + info.n_bytes, name
        if position > cursor.size:
            raise cursor.error(
                f"the tensor {name!r} needs a file of {position} bytes, got {cursor.size}; "
                "the download may be incomplete"
            )
