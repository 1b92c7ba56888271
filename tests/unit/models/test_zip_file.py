from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from puna.errors import CheckpointError
from puna.models import zip_file
from puna.models.zip_file import Member, read_members

CONTENTS = {"a": b"first", "b/c": b"", "d": bytes(range(200))}


def good() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in CONTENTS.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, Member]:
    return read_members(np.frombuffer(data, np.uint8), "x.zip")


def test_members_are_where_the_zip_module_finds_them() -> None:
    data = good()
    members = read(data)
    assert {n: data[m.start : m.start + m.n_bytes] for n, m in members.items()} == CONTENTS


def wide(data: bytes = b"payload") -> bytes:
    """An archive with every size and offset in 64 bits, as one of more than 4 GB has them."""
    crc = zlib.crc32(data)
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 0, 0, 0, crc, len(data), len(data), 1, 0)
    local += b"w" + data
    extra = struct.pack("<HHHHQQQ", 7, 0, 1, 24, len(data), len(data), 0)
    entry = struct.pack(
        "<4s6H3L5H2L",
        b"PK\x01\x02", 45, 45, 0, 0, 0, 0, crc, 2**32 - 1, 2**32 - 1, 1, len(extra), 0, 0, 0, 0, 2**32 - 1,
    )  # fmt: skip
    entry += b"w" + extra
    start = len(local)
    end_64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(entry), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return local + entry + end_64 + locator + end


def test_numbers_of_64_bits() -> None:
    data = wide()
    assert zipfile.ZipFile(io.BytesIO(data)).read("w") == b"payload"
    member = read(data)["w"]
    assert data[member.start : member.start + member.n_bytes] == b"payload"


def patched(data: bytes, find: bytes, at: int, new: bytes) -> bytes:
    """`data` with other bytes at a distance from the last place where `find` is."""
    start = data.rindex(find) + at
    return data[:start] + new + data[start + len(new) :]


END, ENTRY, LOCAL, END_64, LOCATOR = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04", b"PK\x06\x06", b"PK\x06\x07"
EXTRA = b"\x01\0\x18\0"
U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack


def _same_name() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("z", b"2")
    return buffer.getvalue().replace(b"z", b"a")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "two letters": (lambda: b"PK", "does not end with its directory"),
    "cut short": (lambda: good()[:-30], "does not end with its directory; the download may be incomplete"),
    "a byte too many": (lambda: good() + b"\0", "does not end with its directory"),
    "65535 members and no 64-bit record": (
        lambda: patched(good(), END, 10, b"\xff\xff"),
        "the place of its directory is missing",
    ),
    "60000 members": (
        lambda: patched(good(), END, 10, b"\x60\xea"),
        "the zip directory is damaged at its byte",
    ),
    "a directory past the end": (lambda: patched(good(), END, 12, U32(9999)), "needs 9999 bytes at offset"),
    "a directory of 4 GB": (lambda: patched(good(), END, 12, U32(2**32 - 2)), "and 33554432 bytes is read"),
    "a directory that starts past the end": (
        lambda: patched(good(), END, 16, U32(2**31)),
        "at offset 2147483648",
    ),
    "a directory at the wrong place": (lambda: patched(good(), END, 16, U32(3)), "is damaged at its byte 0"),
    "2^64-1 members": (lambda: patched(wide(), END_64, 32, U64(2**64 - 1)), "got 18446744073709551615 and"),
    "a directory of 2^64-1 bytes": (
        lambda: patched(wide(), END_64, 40, U64(2**64 - 1)),
        "bytes is read, got 1 and",
    ),
    "a directory at 2^64-1": (
        lambda: patched(wide(), END_64, 48, U64(2**64 - 1)),
        "at offset 18446744073709551615",
    ),
    "a 64-bit record at 2^64-1": (
        lambda: patched(wide(), LOCATOR, 8, U64(2**64 - 1)),
        "offset 18446744073709551615 holds no end record",
    ),
    "a 64-bit record somewhere else": (
        lambda: patched(wide(), LOCATOR, 8, U64(1)),
        "offset 1 holds no end record",
    ),
    "a size of 64 bits that is not there": (
        lambda: patched(good(), ENTRY, 24, U32(2**32 - 1)),
        "the zip directory is damaged at its byte",
    ),
    "a member of 2^64-1 bytes": (
        lambda: patched(wide(), EXTRA, 4, U64(2**64 - 1) * 2),
        "'w' needs 18446744073709551615 bytes at offset",
    ),
    "a header at 2^64-1": (
        lambda: patched(wide(), EXTRA, 20, U64(2**64 - 1)),
        "no header at offset 18446744073709551615",
    ),
    "a header in the directory": (lambda: patched(good(), ENTRY, 42, U32(400)), "no header at offset 400"),
    "a header that is none": (lambda: patched(good(), ENTRY, 42, U32(1)), "has no header at offset 1"),
    "a member past the directory": (
        lambda: patched(patched(good(), ENTRY, 20, U32(500)), ENTRY, 24, U32(500)),
        "'d' needs 500 bytes",
    ),
    "a local name of 64 KB": (
        lambda: patched(good(), LOCAL, 26, b"\xff\xff"),
        "'d' needs 200 bytes at offset 65",
    ),
    "two sizes": (lambda: patched(good(), ENTRY, 20, U32(100)), "is damaged at its byte"),
    "compressed": (lambda: patched(good(), ENTRY, 10, b"\x08\0"), "'d' is compressed or encrypted"),
    "encrypted": (lambda: patched(good(), ENTRY, 8, b"\x01\0"), "'d' is compressed or encrypted"),
    "a name that is too long": (lambda: patched(good(), ENTRY, 28, b"\xff\xff"), "is damaged at its byte"),
    "a name not UTF-8": (lambda: patched(good(), ENTRY, 46, b"\xff"), "is damaged at its byte"),
    "the same name twice": (_same_name, "has two members 'a'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(case: str) -> None:
    make, words = HOSTILE[case]
    with pytest.raises(CheckpointError) as caught:
        read(make())
    assert words in str(caught.value)
    assert str(caught.value).startswith("x.zip: ")


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_file, "_MAX_MEMBERS", 2)
    with pytest.raises(CheckpointError, match="of at most 2 members and 33554432 bytes is read, got 3 and"):
        read(good())
