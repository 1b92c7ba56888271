"""Servers that do not hand out what is wanted."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest
from tests.unit.models.download.lying import (
    CONTENT,
    SHA256,
    Answer,
    N,
    Server,
    chunked,
    cut,
    fetch,
    part_of,
    send,
    whole,
)

from puna.errors import DownloadError
from puna.models.download import RefusedError

BAD: dict[str, tuple[Answer, str, int | None]] = {
    "always cut at the start": (cut(0), "0 of 300000 bytes arrived, then 5 attempts brought no more", 0),
    "always fails": (send(503), "then 5 attempts brought no more (HTTP status 503); try again later", None),
    "not found": (send(404), "the server answered with HTTP status 404", None),
    "forbidden": (send(403), "the server answered with HTTP status 403", None),
    "no content": (send(204), "the server answered with HTTP status 204", None),
    "another size": (send(200, CONTENT[:-1]), "must have 300000 bytes, the server says '299999'", None),
    "an empty file": (send(200), "must have 300000 bytes, the server says '0'", None),
    "too much without a length": (chunked(CONTENT + b"x"), "must have 300000 bytes, got more", None),
    "too little without a length": (chunked(CONTENT[:9]), "9 of 300000 bytes arrived, then 5 attempts", 9),
    "a range that was not asked for": (
        send(206, CONTENT, Content_Range=f"bytes 1-{N}/{N + 1}"),
        "must send bytes 0-299999/300000, got 'bytes 1-300000/300001'",
        None,
    ),
    "a range without words": (send(206, CONTENT), "must send bytes 0-299999/300000, got ''", None),
    "for ever elsewhere": (send(302, Location="/file.whl"), "Exceeded maximum allowed redirects", None),
    "elsewhere by another protocol": (
        send(302, Location="ftp://127.0.0.1/x"),
        "cannot be fetched: Request URL has an unsupported protocol 'ftp://'",
        None,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_had(server: Server, tmp_path: Path, case: str) -> None:
    answer, words, left = BAD[case]
    server.answers = [answer]
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, tmp_path)
    assert words in str(caught.value)
    assert server.url in str(caught.value)
    assert not (tmp_path / "file.whl").exists()
    assert (part_of(tmp_path).stat().st_size if part_of(tmp_path).exists() else None) == left


def test_lies_about_the_range_keep_what_is_there(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    server.answers = [send(206, CONTENT[2000:], Content_Range=f"bytes 2000-{N - 1}/{N}")]
    with pytest.raises(
        DownloadError, match="must send bytes 1000-299999/300000, got 'bytes 2000-299999/300000'"
    ):
        fetch(server.url, tmp_path)
    assert part_of(tmp_path).read_bytes() == CONTENT[:1000]
    server.answers = [whole]
    fetch(server.url, tmp_path)
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_wrong_checksum_deletes_what_arrived(server: Server, tmp_path: Path) -> None:
    server.answers = [send(200, CONTENT[:-1] + b"!")]
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, tmp_path)
    found = hashlib.sha256(CONTENT[:-1] + b"!").hexdigest()
    assert str(caught.value) == (
        f"{server.url} needs the SHA-256 {SHA256}, got SHA-256 {found}; what arrived was deleted, try again"
    )
    assert os.listdir(tmp_path) == []


def test_a_damaged_part_is_found_out(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(b"?" * 1000)
    with pytest.raises(DownloadError, match="what arrived was deleted"):
        fetch(server.url, tmp_path)
    fetch(server.url, tmp_path)
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_compressed_answer_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    server.answers = [send(200, bomb, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match=f"must have 300000 bytes, the server says '{len(bomb)}'"):
        fetch(server.url, tmp_path)
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert os.listdir(tmp_path) == []


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="0 of 300000 bytes arrived, then 5 attempts brought no more"):
        fetch("http://127.0.0.1:1/file.whl", tmp_path)


def test_a_protocol_of_nowhere(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match="gopher://x/y cannot be fetched: Request URL has an unsupported protocol"
    ):
        fetch("gopher://x/y", tmp_path)


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, ""), (404, "EntryNotFound")])
def test_what_a_refusal_says(server: Server, tmp_path: Path, status: int, code: str) -> None:
    server.answers = [send(status, b"sorry", **{"X-Error-Code": code} if code else {})]
    with pytest.raises(RefusedError, match=f"answered with HTTP status {status}") as caught:
        fetch(server.url, tmp_path)
    assert (caught.value.status, caught.value.code) == (status, code)
