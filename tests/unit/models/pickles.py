"""Builds files of torch.save by hand, so that tests can make bad ones; torch must read the good ones."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

FLOAT = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n)R"


def number(value: int) -> bytes:
    if value is True:
        return b"\x88"
    if 0 <= value < 256:
        return b"K" + bytes([value])
    width = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([width]) + value.to_bytes(width, "little", signed=True)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", n_elements: int = 8, kind: bytes = FLOAT) -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(n_elements) + b"tQ"


def tensor(
    shape: tuple[int, ...] = (2, 4),
    strides: tuple[int, ...] = (4, 1),
    offset: int = 0,
    stored: bytes | None = None,
) -> bytes:
    stored = storage() if stored is None else stored
    return (
        REBUILD + b"(" + stored + number(offset) + sizes(shape) + sizes(strides) + b"\x89" + ORDERED + b"tR"
    )


def model(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + b"}(" + items + b"u."


def write(
    path: Path,
    pickle: bytes,
    storages: dict[str, bytes] | None = None,
    *,
    byte_order: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
    folder: str = "archive",
) -> Path:
    """Like torch.save; the storage that `storage()` names holds eight numbers."""
    stored = {"0": struct.pack("<8f", *range(8))} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", pickle)
        archive.writestr(f"{folder}/version", b"3\n")
        if byte_order is not None:
            archive.writestr(f"{folder}/byteorder", byte_order)
        for key, data in stored.items():
            archive.writestr(f"{folder}/data/{key}", data)
    return path
