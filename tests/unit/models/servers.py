"""Servers on this machine that stand in for Hugging Face and for Meta, good and bad."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers GET by its method `get`, and keeps what was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        # Called once for each request to a path, in the place of the good answer.
        self.bad: dict[str, list[Answer]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                outer.requests.append({**dict(self.headers), "path": path, "full": self.path})
                self.close_connection = True
                bad = outer.bad.get(path)
                (bad.pop(0) if bad else outer.get)(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, ending: str) -> list[dict[str, str]]:
        return [request for request in self.requests if request["path"].endswith(ending)]


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    sent: int | None = None,
    **headers: object,
) -> None:
    """Headers that promise ``body``, and no more than ``sent`` bytes of it."""
    handler.send_response(status)
    for name, value in {"Content-Length": len(body), **headers}.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body[:sent])


def send_file(handler: BaseHTTPRequestHandler, data: bytes, sent: int | None = None) -> None:
    """A file, or the range of it that was asked for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if match is None:
        send(handler, 200, data, sent)
        return
    start, end = int(match[1]), int(match[2] or len(data) - 1)
    content_range = f"bytes {start}-{end}/{len(data)}"
    send(handler, 206, data[start : end + 1], sent, Content_Range=content_range)


class Files(Server):
    """Hands out files by path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        super().__init__()

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        data = self.files.get(unquote(urlsplit(handler.path).path))
        if data is None:
            send(handler, 403, b"<Error>AccessDenied</Error>")
        else:
            send_file(handler, data)


class Hub(Server):
    """Hugging Face: the list of a repository, small files, and large ones on another host."""

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        self.repository = repository
        self.files = files
        self.gated: bool | str = False
        self.tokens: set[str] = set()  # of those who may read a gated repository
        self.lists_gated = True
        self.listing: dict[str, Any] = {}  # changes to what the list says
        self.store = Files({f"/{hashlib.sha256(data).hexdigest()}": data for data in files.values()})
        super().__init__()

    def close(self) -> None:
        super().close()
        self.store.close()

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        may_read = not self.gated or handler.headers.get("Authorization", "") in {
            f"Bearer {token}" for token in self.tokens
        }
        resolve = f"/{self.repository}/resolve/{COMMIT}/"
        if path == f"/api/models/{self.repository}":
            self._list(handler)
        elif path.startswith(resolve) and path.removeprefix(resolve) in self.files:
            if may_read:
                self._file(handler, path.removeprefix(resolve))
            else:
                status = 403 if "Authorization" in handler.headers else 401
                send(handler, status, b"gated", X_Error_Code="GatedRepo")
        else:
            send(handler, 401, b"{}", X_Error_Code="RepoNotFound")

    def _list(self, handler: BaseHTTPRequestHandler) -> None:
        siblings = [sibling(name, data) for name, data in self.files.items()]
        info = {
            "_id": "1", "id": self.repository, "modelId": self.repository, "sha": COMMIT, "private": False,
            "gated": self.gated, "siblings": siblings, "cardData": {"license": "llama3.2"}, **self.listing,
        }  # fmt: skip
        send(handler, 200, json.dumps(info).encode(), Content_Type="application/json")

    def _file(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        if is_large(name):
            send(handler, 302, Location=f"{self.store.url}/{hashlib.sha256(data).hexdigest()}")
        else:
            send_file(handler, data)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", ".pth", ".bin"))


def sibling(name: str, data: bytes) -> dict[str, Any]:
    """A file as the hub's list has it."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if is_large(name):
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
