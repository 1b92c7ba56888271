"""Sizes, and small files that are read into memory."""

from __future__ import annotations

import pytest
from tests.unit.models.download.lying import CONTENT, Answer, N, Server, chunked, send

from puna.errors import DownloadError
from puna.models.download import RefusedError, client_trusting, read_small, size_of


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
        with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/ cannot be fetched: .*; look at the"):
            read_small("http://127.0.0.1:1/", client, 100)
