"""Where the members of a zip archive lie: `read_members`.

For archives whose members are stored as they are, as PyTorch writes them, so that tensors can be
viewed in place; a compressed member is refused, so nothing here can grow. Nothing is unpacked, and
members' names are never used as paths.

Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError

__all__ = ["Member", "read_members"]

# The largest checkpoints have some 1,200 tensors a file.
_MAX_MEMBERS = 65_536
_MAX_DIRECTORY_BYTES = 32 * 1024 * 1024

_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 1
# In place of a number that did not fit and stands in 64 bits elsewhere.
_ELSEWHERE_16, _ELSEWHERE_32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member's bytes lie.

    Attributes:
        start: offset of the first byte in the archive.
        n_bytes: size.
    """

    start: int
    n_bytes: int


def read_members(data: NDArray[np.uint8], source: str) -> dict[str, Member]:
    """Read an archive's directory and check it against the archive.

    Args:
        data: the whole archive, ``[bytes]``; only its directory and headers are touched.
        source: the file, for messages.

    Returns:
        Members by name; each lies inside the archive, before its directory.

    Raises:
        CheckpointError: the archive is cut short or damaged, a member is compressed or encrypted, or
            two have the same name.
    """
    n_members, start, n_bytes = _directory(data, source)
    if n_members > _MAX_MEMBERS or n_bytes > _MAX_DIRECTORY_BYTES:
        raise CheckpointError(
            f"{source}: a zip directory of at most {_MAX_MEMBERS} members and {_MAX_DIRECTORY_BYTES} bytes "
            f"is read, got {n_members} and {n_bytes}"
        )
    if start + n_bytes > data.size:
        raise CheckpointError(
            f"{source}: the zip directory needs {n_bytes} bytes at offset {start}, the file has {data.size}"
        )
    directory = data[start : start + n_bytes].tobytes()
    members: dict[str, Member] = {}
    position = 0
    for _ in range(n_members):
        name, size, header, position = _entry(directory, position, source)
        if name in members:
            raise CheckpointError(f"{source}: the zip archive has two members {name!r:.100}")
        members[name] = _member(data[:start], name, size, header, source)
    return members


def _directory(data: NDArray[np.uint8], source: str) -> tuple[int, int, int]:
    """Number of members, and offset and size of the directory."""
    end = data.size - _END.size
    if end < 0 or data[end : end + 4].tobytes() != b"PK\x05\x06":
        raise CheckpointError(
            f"{source}: the zip archive does not end with its directory; the download may be incomplete"
        )
    _, _, _, _, n_members, n_bytes, start, _ = _END.unpack(data[end:].tobytes())
    if n_members != _ELSEWHERE_16 and _ELSEWHERE_32 not in (n_bytes, start):
        return n_members, start, n_bytes
    locator = end - _END_64_LOCATOR.size
    if locator < 0 or data[locator : locator + 4].tobytes() != b"PK\x06\x07":
        raise CheckpointError(f"{source}: the zip archive is damaged, the place of its directory is missing")
    _, _, end_64, _ = _END_64_LOCATOR.unpack(data[locator:end].tobytes())
    if end_64 + _END_64.size > locator or data[end_64 : end_64 + 4].tobytes() != b"PK\x06\x06":
        raise CheckpointError(f"{source}: the zip archive is damaged, offset {end_64} holds no end record")
    fields = _END_64.unpack(data[end_64 : end_64 + _END_64.size].tobytes())
    n_members, n_bytes, start = fields[7:]
    return n_members, start, n_bytes


def _entry(directory: bytes, position: int, source: str) -> tuple[str, int, int, int]:
    """One row of the directory: name, size, offset of its header, and where the next row begins."""
    damaged = CheckpointError(f"{source}: the zip directory is damaged at its byte {position}")
    if position + _ENTRY.size > len(directory):
        raise damaged
    (magic, _, _, flags, method, _, _, _, packed, size, n_name, n_extra, n_comment, _, _, _, header) = (
        _ENTRY.unpack_from(directory, position)
    )
    name_start = position + _ENTRY.size
    extra_start = name_start + n_name
    end = extra_start + n_extra + n_comment
    if magic != b"PK\x01\x02" or end > len(directory):
        raise damaged
    try:
        name = directory[name_start:extra_start].decode("utf-8")
    except UnicodeDecodeError:
        raise damaged from None
    if method != 0 or flags & _ENCRYPTED:
        raise CheckpointError(
            f"{source}: the zip member {name!r:.100} is compressed or encrypted, which PyTorch never does"
        )
    size, packed, header = _wide_numbers(
        directory[extra_start : extra_start + n_extra], (size, packed, header), damaged
    )
    if size != packed:
        raise damaged
    return name, size, header, end


def _wide_numbers(
    extra: bytes, numbers: tuple[int, int, int], damaged: CheckpointError
) -> tuple[int, int, int]:
    """Sizes and offset of an entry, those that did not fit 32 bits taken from its extra field."""
    wide = b""
    while len(extra) >= 4 and not wide:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    result = []
    for number in numbers:
        if number == _ELSEWHERE_32:
            if len(wide) < 8:
                raise damaged
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        result.append(number)
    return result[0], result[1], result[2]


def _member(before_directory: NDArray[np.uint8], name: str, size: int, header: int, source: str) -> Member:
    data = before_directory[header : header + _LOCAL.size].tobytes()
    if len(data) < _LOCAL.size or data[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{source}: the zip member {name!r:.100} has no header at offset {header}")
    *_, n_name, n_extra = _LOCAL.unpack(data)
    start = header + _LOCAL.size + n_name + n_extra
    if start + size > before_directory.size:
        raise CheckpointError(
            f"{source}: the zip member {name!r:.100} needs {size} bytes at offset {start}, "
            f"{before_directory.size} lie before the directory; the file is cut short or damaged"
        )
    return Member(start, size)
