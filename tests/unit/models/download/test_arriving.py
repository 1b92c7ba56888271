"""Files that arrive, whatever breaks on the way."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
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
from puna.models import download as module
from puna.models.digests import Digest
from puna.models.rate import RateLimit

GOOD: dict[str, tuple[list[Answer], list[str | None]]] = {
    "at once": ([whole], [None]),
    "cut twice": ([cut(100_000), cut(50_000), whole], [None, "bytes=100000-", "bytes=150000-"]),
    "fails, then works": ([send(503), send(500), whole], [None] * 3),
    "too many requests, then works": ([send(429), whole], [None] * 2),
    "does not know ranges": ([cut(100_000), send(200, CONTENT)], [None, "bytes=100000-"]),
    "no length given": ([chunked(CONTENT)], [None]),
    "fails four times between bytes": (
        [cut(100_000), *[send(502)] * 4, cut(10), *[send(502)] * 4, whole],
        [None, *["bytes=100000-"] * 5, *["bytes=100010-"] * 5],
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_the_file_arrives_whole(server: Server, tmp_path: Path, case: str) -> None:
    server.answers, ranges = GOOD[case]
    seen = fetch(server.url, tmp_path)
    assert (tmp_path / "file.whl").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file.whl"]
    assert (seen[0], seen[-1]) == (0, N)
    assert server.ranges() == ranges


def test_goes_on_from_what_is_there(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:123_456])
    seen = fetch(server.url, tmp_path)
    assert server.ranges() == ["bytes=123456-"]
    assert (seen[0], seen[-1]) == (123_456, N)
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_request(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT)
    fetch(server.url, tmp_path)
    assert server.requests == []
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT + b"x")
    fetch(server.url, tmp_path)
    assert server.ranges() == [None]
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_pauses_grow_and_start_again_after_a_byte(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.answers = [send(500), send(500), cut(5), send(500), whole]
    fetch(server.url, tmp_path)
    assert pauses == [1, 2, 0.5, 1]


def test_a_server_that_stalls(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        whole(handler, 1000)
        release.wait(30)

    server.answers = [stall, whole]
    monkeypatch.setattr(module, "_TIMEOUT", httpx2.Timeout(0.1))
    try:
        fetch(server.url, tmp_path)
    finally:
        release.set()
    assert server.ranges() == [None, "bytes=1000-"]
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_download_goes_on(server: Server, tmp_path: Path) -> None:
    release = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        whole(handler, 200_000)
        release.wait(60)

    server.answers = [stall, whole]
    script = (
        "import sys; from pathlib import Path; from puna.models.download import download\n"
        "from puna.models.digests import Digest\n"
        f"download(sys.argv[1], Path(sys.argv[2]), size={N}, digest=Digest('sha256', {SHA256!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, server.url, str(tmp_path / "file.whl")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not (part_of(tmp_path).exists() and part_of(tmp_path).stat().st_size >= 100_000):
        assert process.poll() is None
        release.wait(0.01)
    process.kill()
    process.wait()
    release.set()
    kept = part_of(tmp_path).stat().st_size
    fetch(server.url, tmp_path)
    assert server.ranges() == [None, f"bytes={kept}-"]
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_large_file_is_asked_for_in_pieces(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def piece(handler: BaseHTTPRequestHandler) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers["Range"])
        assert match
        start, end = int(match[1]), int(match[2] or N - 1)
        content_range = f"bytes {start}-{end}/{N}"
        send(206, CONTENT[start : end + 1], Content_Range=content_range)(handler)

    server.answers = [piece]
    monkeypatch.setattr(module, "_MAX_REQUEST_BYTES", 120_000)
    fetch(server.url, tmp_path)
    assert server.ranges() == ["bytes=0-119999", "bytes=120000-239999", "bytes=240000-"]
    assert pauses == []
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_limited_rate_waits_for_every_byte(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    fetch(server.url, tmp_path, limit=RateLimit(1000, clock=lambda: 0.0))
    # The clock stands still: the last wait is that for all bytes together.
    assert pauses[-1] == pytest.approx(300.0)
    assert pauses == sorted(pauses)


def test_an_empty_file(server: Server, tmp_path: Path) -> None:
    empty = Digest("sha256", hashlib.sha256(b"").hexdigest())
    fetch(server.url, tmp_path, size=0, digest=empty)
    assert (tmp_path / "file.whl").read_bytes() == b""
    assert server.requests == []


@pytest.mark.parametrize(
    "digest",
    [
        Digest("md5", hashlib.md5(CONTENT).hexdigest()),
        Digest("git-sha1", hashlib.sha1(b"blob 300000\0" + CONTENT).hexdigest()),
        None,
    ],
)
def test_other_checksums(server: Server, tmp_path: Path, digest: Digest | None) -> None:
    fetch(server.url, tmp_path, digest=digest)
    assert (tmp_path / "file.whl").read_bytes() == CONTENT
    if digest is not None:
        server.answers = [send(200, CONTENT[:-1] + b"!")]
        with pytest.raises(DownloadError, match=f"needs the {digest}, got {str(digest)[:3]}"):
            fetch(server.url, tmp_path, digest=digest)


@pytest.mark.parametrize("before", [b"", CONTENT[:1000]])
def test_a_file_of_this_machine(tmp_path: Path, before: bytes) -> None:
    source = tmp_path / "source with space"
    source.write_bytes(CONTENT)
    part_of(tmp_path).write_bytes(before)
    assert fetch(source.as_uri(), tmp_path)[-1] == N
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_files_of_this_machine_that_are_not_it(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="nowhere cannot be read: No such file or directory"):
        fetch((tmp_path / "nowhere").as_uri(), tmp_path)
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(DownloadError, match="short must have 300000 bytes, got 3"):
        fetch((tmp_path / "short").as_uri(), tmp_path)
