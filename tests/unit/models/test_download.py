"""Downloads from a server on this machine that does all that servers do when things go wrong."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from puna.errors import DownloadError, StoreError
from puna.models import download as module
from puna.models.digests import Digest
from puna.models.download import RefusedError, client_trusting, download, read_small, size_of
from puna.models.rate import RateLimit

CONTENT = np.random.default_rng(4).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
N = len(CONTENT)

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each request with the next of its answers, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append({"path": self.path, **dict(self.headers)})
                self.close_connection = True
                index = min(len(outer.requests), len(outer.answers)) - 1
                outer.answers[index](self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/file.whl"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]


def send(status: int, body: bytes = b"", sent: int | None = None, **headers: object) -> Answer:
    """Answers with headers that promise ``body`` and sends no more than ``sent`` bytes of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body[:sent])

    return answer


def whole(handler: BaseHTTPRequestHandler, sent: int | None = None) -> None:
    """A good server: ranges where they are asked for."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(match[1]) if match else 0
    content_range = f"bytes {start}-{N - 1}/{N}"
    send(206 if match else 200, CONTENT[start:], sent, Content_Range=content_range)(handler)


def cut(sent: int) -> Answer:
    return lambda handler: whole(handler, sent)


def chunked(body: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    return pauses


def fetch(url: str, folder: Path, **changes: Any) -> list[int]:
    seen: list[int] = []
    settings: dict[str, Any] = {
        "size": N,
        "digest": Digest("sha256", SHA256),
        "progress": lambda done, _: seen.append(done),
    }
    try:
        download(url, folder / "file.whl", **(settings | changes))
    finally:
        assert seen == sorted(seen)
    return seen


def part_of(folder: Path) -> Path:
    return folder / "file.whl.part"


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


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="0 of 300000 bytes arrived, then 5 attempts brought no more"):
        fetch("http://127.0.0.1:1/file.whl", tmp_path)


def test_a_protocol_of_nowhere(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match="gopher://x/y cannot be fetched: Request URL has an unsupported protocol"
    ):
        fetch("gopher://x/y", tmp_path)


def test_a_redirect_to_another_host_gets_no_password(server: Server, tmp_path: Path) -> None:
    other = Server()
    try:
        server.answers = [send(302, Location="/again"), send(302, Location=other.url)]
        with httpx2.Client(auth=("user", "secret")) as client:
            fetch(server.url, tmp_path, client=client)
            assert not client.is_closed
    finally:
        other.close()
    assert ["Authorization" in request for request in server.requests] == [True, True]
    assert ["Authorization" in request for request in other.requests] == [False]
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


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


def test_a_disk_without_room_is_seen_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    part_of(tmp_path).write_bytes(CONTENT[: N - 1001])
    with pytest.raises(
        StoreError, match="needs 1001 bytes more, the disk has 1000 free; make room, or set PUNA_HOME"
    ):
        fetch(server.url, tmp_path)
    assert server.requests == []


def test_a_disk_that_fills_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module._Fetch, "_write", write)
    with pytest.raises(
        StoreError, match=r"file\.whl\.part cannot be written: No space left on device"
    ) as caught:
        fetch(server.url, tmp_path)
    assert caught.type is StoreError
    assert len(server.requests) == 1


def test_a_folder_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
        fetch(server.url, tmp_path / "nowhere")


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


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    with (
        httpx2.Client(transport=httpx2.MockTransport(refuse)) as client,
        pytest.raises(
            DownloadError, match=r"name its certificate file with `pip config set global\.cert FILE`"
        ),
    ):
        fetch("https://example.invalid/file.whl", tmp_path, client=client)


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(DownloadError, match=r"cert\.pem of pip's setting `cert` cannot be read"):
        client_trusting(str(tmp_path / "cert.pem"))


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


@pytest.mark.parametrize("is_another_host", [False, True])
def test_a_token_stays_with_its_host(server: Server, tmp_path: Path, is_another_host: bool) -> None:
    other = Server()
    try:
        server.answers = [send(302, Location=other.url if is_another_host else "/again"), whole]
        fetch(server.url, tmp_path, headers={"Authorization": "Bearer secret"})
    finally:
        other.close()
    assert [request.get("Authorization") for request in server.requests] == ["Bearer secret"] * (
        1 if is_another_host else 2
    )
    assert ["Authorization" in request for request in other.requests] == ([False] if is_another_host else [])
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, ""), (404, "EntryNotFound")])
def test_what_a_refusal_says(server: Server, tmp_path: Path, status: int, code: str) -> None:
    server.answers = [send(status, b"sorry", **{"X-Error-Code": code} if code else {})]
    with pytest.raises(RefusedError, match=f"answered with HTTP status {status}") as caught:
        fetch(server.url, tmp_path)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_signature_is_in_no_message(server: Server, tmp_path: Path) -> None:
    signed = f"{server.url}?Signature=secret"
    failures: list[Answer] = [
        send(403),
        send(200, CONTENT[:-1]),
        send(206, CONTENT),
        send(302, Location="x:y"),
    ]
    for failure in failures:
        server.answers = [failure]
        with pytest.raises(DownloadError) as caught:
            fetch(signed, tmp_path)
        assert server.url in str(caught.value)
        assert "secret" not in str(caught.value)
    server.answers = [send(200, b"?" * N)]
    with pytest.raises(DownloadError) as caught:
        fetch(signed, tmp_path)
    assert "secret" not in str(caught.value)
    assert server.requests[0]["path"].endswith("?Signature=secret")


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


def test_a_compressed_answer_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    server.answers = [send(200, bomb, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match=f"must have 300000 bytes, the server says '{len(bomb)}'"):
        fetch(server.url, tmp_path)
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_in_place_of_the_part_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    part_of(tmp_path).symlink_to(tmp_path / "mine")
    fetch(server.url, tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "file.whl").is_symlink()
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
    ("answer", "size"),
    [(send(206, b"x", Content_Range=f"bytes 0-0/{N}"), N), (send(200, CONTENT), N), (send(200, b""), 0)],
)
def test_the_size_of_a_file(server: Server, answer: Answer, size: int) -> None:
    server.answers = [answer]
    with client_trusting() as client:
        assert size_of(server.url, client) == size
    assert server.ranges() == ["bytes=0-0"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (send(403), "answered with HTTP status 403"),
        (send(206, b"x", Content_Range="bytes 0-0/*"), "does not say how large the file is"),
        (send(206, b"x", Content_Range="bytes 0-0/-5"), "does not say how large the file is"),
        (chunked(CONTENT), "does not say how large the file is"),
    ],
)
def test_a_server_that_does_not_tell_the_size(server: Server, answer: Answer, words: str) -> None:
    server.answers = [answer]
    with client_trusting() as client, pytest.raises(DownloadError, match=words):
        size_of(server.url, client)


def test_small_files(server: Server) -> None:
    server.answers = [send(200, b"text"), chunked(b"t" * 101), send(404)]
    with client_trusting() as client:
        assert read_small(server.url, client, 100) == b"text"
        with pytest.raises(DownloadError, match="must have at most 100 bytes, got more"):
            read_small(server.url, client, 100)
        with pytest.raises(RefusedError, match="answered with HTTP status 404"):
            read_small(server.url, client, 100)
        with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/ cannot be fetched: "):
            read_small("http://127.0.0.1:1/", client, 100)
