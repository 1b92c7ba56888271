"""Requests that are no HTTP, or could mean one thing here and another at a proxy: refused, with no trace."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.unit.server.live import Live, running
from tests.unit.server.test_attacks import raw

from puna.server.hosting.hosted import HostedModel

GET = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n"
POST = "POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\n"
REFUSED = {
    "a tunnel": "CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an address without a path": "GET http://evil.example HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path that is none": "GET ?x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path with a NUL": "GET /v1/health\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path that is no ASCII": "GET /\u00e9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP 2 at once": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that there is not": "GET /v1/health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no host": "GET /v1/health HTTP/1.1\r\n\r\n",
    "a folded header": "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\r\n",
    "a space before the colon": "GET /v1/health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a line end in a header": f"{GET}X: a\rb\r\n\r\n",
    "line ends of another kind": "GET /v1/health HTTP/1.1\nHost: localhost\n\n",
    "a negative length": f"{POST}Content-Length: -1\r\n\r\n",
    "a length with a sign": f"{POST}Content-Length: +5\r\n\r\nabcde",
    "a length in Python's way": f"{POST}Content-Length: 1_0\r\n\r\nabcde",
    "a length that overflows": f"{POST}Content-Length: 99999999999999999999999\r\n\r\n",
    "a coding that is not known": f"{POST}Transfer-Encoding: xchunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "a chunk of no length": f"{POST}Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "a chunk whose length overflows": f"{POST}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
    "a chunk with much behind its length": f"{POST}Transfer-Encoding: chunked\r\n\r\n1;{'a' * 100_000}",
}


@pytest.fixture(scope="module")
def live(scripted_model: HostedModel) -> Iterator[Live]:
    scripted_model.loaded = None
    with running([scripted_model], read_timeout_s=1) as server:
        yield server


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("hm\r\n\r\n", "Invalid HTTP request received."),
        (f"{GET}X: {'a' * 40_000}", "The headers are too long."),
    ],
)
def test_what_is_no_http_gets_an_error_as_any_other(live: Live, sent: str, said: str) -> None:
    head, _, body = raw(live, sent.encode()).partition(b"\r\n\r\n")
    status, *headers = head.decode().lower().split("\r\n")
    assert status == "http/1.1 400 bad request"
    assert {"content-type: application/json", f"content-length: {len(body)}", "connection: close"} <= set(
        headers
    )
    told = {"message": said, "type": "invalid_request_error", "param": None, "code": None}
    assert json.loads(body) == {"error": told}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(live: Live, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert raw(live, REFUSED[name].encode("latin-1")).startswith(b"HTTP/1.1 4")
    assert "Traceback" not in capfd.readouterr().err
    assert live.http.get("/v1/health").status_code == 200
