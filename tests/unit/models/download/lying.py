"""A server on this machine that does all that servers do when things go wrong."""

from __future__ import annotations

import hashlib
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
from tests.unit.models import servers
from tests.unit.models.servers import Answer

from puna.models.digests import Digest
from puna.models.download import download

CONTENT = np.random.default_rng(4).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
N = len(CONTENT)


class Server(servers.Server):
    """Answers each request with the next of its answers, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        super().__init__()
        self.url += "/file.whl"

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        index = min(len(self.requests), len(self.answers)) - 1
        self.answers[index](handler)

    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]


def send(status: int, body: bytes = b"", sent: int | None = None, **headers: object) -> Answer:
    """Answers with headers that promise ``body`` and sends no more than ``sent`` bytes of it."""
    return lambda handler: servers.send(handler, status, body, sent, **headers)


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
