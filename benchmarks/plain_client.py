"""A client that costs next to nothing: plain sockets in one thread, and nothing is parsed before all is over.

A client's own time counts as the server's, and where both have the same CPUs it slows the engine too.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

from benchmarks.served import Served

__all__ = ["Stream", "connect", "post", "stream", "tokens_of"]

_ACCEPT_S = 0.02  # for a server to take its connections
_EVENT = re.compile(rb"^data: (\{.*\})\r?$", re.MULTILINE)


@dataclass(slots=True)
class Stream:
    """What a server sent of one answer.

    Attributes:
        asked_s: when the request was sent, by the performance counter.
        pieces: when each came, and its bytes.
    """

    asked_s: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """The events, each with the time at which all of it was there.

        Raises:
            RuntimeError: the server did not answer with a stream of events, or sent none.
        """
        data = b"".join(piece for _, piece in self.pieces)
        if not data.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the server answered {data[:200]!r}")
        ends = list(accumulate(len(piece) for _, piece in self.pieces))
        events = [
            (self.pieces[bisect_left(ends, found.end())][0], json.loads(found[1]))
            for found in _EVENT.finditer(data)
        ]
        if not events:
            raise RuntimeError(f"the server sent no event, but {data[:200]!r}")
        return events


def tokens_of(events: Sequence[tuple[float, Mapping[str, Any]]]) -> int:
    """New tokens of an answer, as its events tell them.

    Raises:
        RuntimeError: none of them does.
    """
    told = [event["usage"]["completion_tokens"] for _, event in events if event.get("usage")]
    if not told:
        raise RuntimeError("no event of the answer tells its tokens")
    return max(told)


def connect(server: Served) -> socket.socket:
    """A connection to a server."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port))


def post(server: Served, route: str, body: Mapping[str, object]) -> bytes:
    """A request behind which the connection ends, as it is sent.

    Args:
        server: whom to ask.
        route: behind ``/v1``.
        body: of the request.
    """
    address, text = urlsplit(server.url), json.dumps(body).encode()
    head = (
        f"POST {address.path}{route} HTTP/1.1",
        f"Host: {address.netloc}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
    )
    return "\r\n".join((*head, "\r\n")).encode() + text


def stream(server: Served, bodies: Sequence[Mapping[str, object]]) -> list[Stream]:
    """Ask for streamed completions at once, over a new connection each, and wait for their ends."""
    requests = [post(server, "/completions", body) for body in bodies]
    with ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        connections = [stack.enter_context(connect(server)) for _ in requests]
        time.sleep(_ACCEPT_S)
        streams = []
        for connection, request in zip(connections, requests, strict=True):
            streams.append(Stream(time.perf_counter()))
            waiting.register(connection, selectors.EVENT_READ, (connection, streams[-1]))
            connection.sendall(request)
        while waiting.get_map():
            for key, _ in waiting.select():
                connection, answer = key.data
                if piece := connection.recv(65536):
                    answer.pieces.append((time.perf_counter(), piece))
                else:
                    waiting.unregister(connection)
    return streams
