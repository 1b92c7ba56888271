"""Connections: how many are open, who has to leave for others, and how slowly one may read."""

from __future__ import annotations

import gc
import json
import socket
import struct
import sys
import weakref
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from tests.unit.server.live import Live, running
from tests.unit.server.test_life import CHAT, SILENT, admission, serving, wait_for

from puna.server.door import protocol as door
from puna.server.door.protocol import Connections, HttpProtocol
from puna.server.door.unread import unread_bytes
from puna.server.hosting.hosted import HostedModel
from puna.server.settings import ServerSettings

HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def request(body: Any, path: str = CHAT) -> bytes:
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + f"Content-Length: {len(text)}\r\n\r\n".encode() + text


def connect(stack: ExitStack, live: Live) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=10))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection on which nothing is to be read."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def received(connection: socket.socket) -> bytes:
    """Everything up to the end."""
    connection.settimeout(10)
    data = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            data += more
    return data


def test_idle_connections_are_bounded_and_the_oldest_makes_room(scripted_model: HostedModel) -> None:
    with serving(scripted_model, max_requests=1, max_connections=17) as live, ExitStack() as stack:
        idle = []
        for n in range(1, 34):
            idle.append(connect(stack, live))
            wait_for(lambda n=n: sum(map(is_closed, idle)) == max(0, n - 17))  # type: ignore[misc]
        assert [is_closed(each) for each in idle] == [True] * 16 + [False] * 17
        # So whoever asks gets in, and those that ask for health too.
        asking = connect(stack, live)
        asking.sendall(HEALTH)
        assert asking.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_connection_with_a_request_makes_no_room(scripted_model: HostedModel) -> None:
    with serving(scripted_model, max_requests=1, max_connections=17) as live, ExitStack() as stack:
        asking = connect(stack, live)
        asking.sendall(request({**SILENT, "max_tokens": 100, "stream": True}))
        assert asking.recv(12) == b"HTTP/1.1 200"
        idle = [connect(stack, live) for _ in range(18)]
        wait_for(lambda: sum(map(is_closed, idle)) == 2)
        assert admission(live).n_running == 1


def test_empty_lines_do_not_hold_a_connection(scripted_model: HostedModel) -> None:
    with serving(scripted_model, read_timeout_s=0.2) as live, ExitStack() as stack:
        connection = connect(stack, live)
        connection.sendall(HEALTH)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"\r\n")
        assert received(connection) == b""


def test_requests_behind_one_that_is_not_answered_are_not_kept(scripted_model: HostedModel) -> None:
    with serving(scripted_model) as live, ExitStack() as stack:
        connection = connect(stack, live)
        connection.sendall(HEALTH * 1000)
        answer = received(connection)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer


@pytest.mark.parametrize("more", [HEALTH, b"\0" * 100], ids=["a request", "no request"])
def test_a_client_that_leaves_is_noticed_whatever_it_sent_behind(
    scripted_model: HostedModel, more: bytes
) -> None:
    with serving(scripted_model) as live, ExitStack() as stack:
        connection = connect(stack, live)
        connection.sendall(request(SILENT) + more)
        wait_for(lambda: admission(live).n_running == 1)
        connection.close()
        wait_for(lambda: admission(live).n_running == 0)


class Clock:
    """As much of an event loop as a connection needs, with a time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[SimpleNamespace] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, do: Callable[[], None]) -> SimpleNamespace:
        timer = SimpleNamespace(at_s=self.now_s + seconds, do=do)
        timer.cancel = lambda: self.timers.remove(timer) if timer in self.timers else None
        self.timers.append(timer)
        return timer

    def call_soon(self, do: Callable[[], None]) -> None:
        do()

    def create_task(self, answering: Coroutine[Any, Any, None]) -> Mock:
        answering.close()  # what is asked here is answered by nobody
        return Mock()

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in [each for each in self.timers if each.at_s <= self.now_s]:
            self.timers.remove(timer)
            timer.do()


class Wire:
    """As much of a transport as a connection needs."""

    def __init__(self, n_unread: int = 0) -> None:
        self.n_unread = n_unread
        self.is_cut = False
        self.is_closed = False
        self.written = b""

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.n_unread

    def is_closing(self) -> bool:
        return self.is_cut or self.is_closed

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_cut, self.n_unread = True, 0


SETTINGS = ServerSettings(write_timeout_s=60, max_requests=1, max_connections=17)


def opened(clock: Clock, state: Connections, wire: Wire) -> HttpProtocol:
    """A connection on which nothing was sent yet."""
    config: Any = SimpleNamespace(
        loaded=True,
        loaded_app=None,
        ws_protocol_class=None,
        root_path="",
        asgi_version="3.0",
        limit_concurrency=None,
        timeout_keep_alive=75,
        reset_contextvars=False,
    )
    connection = HttpProtocol(config, state, {}, clock)  # type: ignore[arg-type]
    connection.connection_made(wire)  # type: ignore[arg-type]
    return connection


def connected(clock: Clock, state: Connections, wire: Wire) -> HttpProtocol:
    """A connection whose client has yet to read what waits on the wire, the last of an answer."""
    connection = opened(clock, state, wire)
    connection._stop_waiting()
    connection.pause_writing()
    return connection


def test_a_client_may_read_slowly_but_not_nothing() -> None:
    clock, wire = Clock(), Wire(1000)
    connection = connected(clock, Connections(SETTINGS), wire)
    for _ in range(100):  # a byte a minute
        wire.n_unread -= 1
        clock.advance(61)
        assert not wire.is_cut
    clock.advance(61)
    assert wire.is_cut
    connection.connection_lost(None)
    assert clock.timers == []


def test_who_has_read_all_makes_room_first() -> None:
    clock, state = Clock(), Connections(SETTINGS)
    wires = [Wire(0 if n in (5, 7) else 1000) for n in range(18)]
    for wire in wires:
        connected(clock, state, wire)
    assert [n for n, wire in enumerate(wires) if wire.is_closing()] == [5]
    assert wires[5].is_closed


def test_slow_readers_of_finished_answers_shut_nobody_out() -> None:
    clock, state = Clock(), Connections(SETTINGS)
    wires = [Wire(1000) for _ in range(19)]
    for wire in wires:
        connected(clock, state, wire)
    assert [n for n, wire in enumerate(wires) if wire.is_closing()] == [0, 1]
    assert all(wire.is_cut for wire in wires[:2])  # to be closed they would have to read on


def test_where_none_is_idle_the_new_connection_is_closed() -> None:
    clock, state = Clock(), Connections(SETTINGS)
    wires = [Wire() for _ in range(18)]
    for wire in wires:
        connected(clock, state, wire)
        state.idle.clear()
    assert [n for n, wire in enumerate(wires) if wire.is_closing()] == [17]
    assert wires[17].is_closed


def test_what_waits_to_be_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_MAX_UNREAD_BYTES", 500_000)
    clock, state, wires = Clock(), Connections(SETTINGS), []
    for _ in range(7):
        clock.advance(1)
        wires.append(Wire(100_000))
        connected(clock, state, wires[-1])
    assert [wire.is_cut for wire in wires] == [True] * 2 + [False] * 5  # the longest that did not read


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_what_the_system_still_has_counts_as_unread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listener.getsockname())
        sender, _ = listener.accept()
        with sender:
            sender.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sender.send(b"x" * 65536)
            wire: Any = Wire(7)
            wire.get_extra_info = lambda name: sender
            before = unread_bytes(wire)
            assert before > 65536
            reader.settimeout(10)
            n_read = 0
            while n_read < before // 2:
                n_read += len(reader.recv(65536))
            wait_for(lambda: unread_bytes(wire) < before)


CHUNKED = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
ENDLESS = {
    "trailer": (b"0\r\nX: ", b"a"),
    "trailers": (b"0\r\n", b"X: a\r\n"),
    "extension": (b"2;x=", b"a"),
    "length": (b"", b"0"),
}


@pytest.mark.parametrize("is_answered", [False, True], ids=["open", "answered"])
@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_no_body_is_bounded_behind_the_head(name: str, is_answered: bool) -> None:
    wire, (begin, more) = Wire(), ENDLESS[name]
    connection = opened(Clock(), Connections(SETTINGS), wire)
    connection.data_received(CHUNKED)
    assert connection.cycle.body == b"{}"
    if is_answered:
        connection.cycle.response_started = connection.cycle.response_complete = True
        connection.on_response_complete()
    connection.data_received(begin)
    for n_bytes in count(0, 1000 * len(more)):
        if wire.is_closed:
            break
        assert n_bytes < 40_000
        connection.data_received(1000 * more)
    # Behind an answer nothing is written: it would seem to be one to the next request.
    assert wire.written[:13] == (b"" if is_answered else b"HTTP/1.1 400 ")


def test_a_body_in_small_chunks_is_not_too_long() -> None:
    wire = Wire()
    connection = opened(Clock(), Connections(SETTINGS), wire)
    connection.data_received(CHUNKED)
    for _ in range(20_000):
        connection.data_received(b"1\r\n \r\n")
    connection.data_received(b"0\r\nX: " + b"a" * 1000 + b"\r\n\r\n")
    assert (len(connection.cycle.body), connection.cycle.more_body) == (20_002, False)
    assert not wire.is_closed


def test_a_head_of_the_largest_size_may_come_in_pieces() -> None:
    wire = Wire()
    connection = opened(Clock(), Connections(SETTINGS), wire)
    head = HEALTH[:-2] + b"X: " + b"a" * 30_000 + b"\r\n"
    for i in range(0, len(head), 1000):
        connection.data_received(head[i : i + 1000])
    connection.data_received(b"\r\n")
    assert not connection.cycle.more_body
    assert not wire.is_closed


UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
)
UPGRADES = {
    "length": b"Content-Length: 2\r\n\r\n{}",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\nX: y\r\n\r\n",
}


@pytest.mark.parametrize("name", UPGRADES)
def test_a_body_of_a_request_for_another_protocol_is_read(name: str) -> None:
    data = b"POST /v1/tokenize HTTP/1.1\r\n" + UPGRADE + UPGRADES[name]
    for i in range(len(data)):
        connection = opened(Clock(), Connections(SETTINGS), Wire())
        connection.data_received(data[:i])
        assert connection.cycle is None or connection.cycle.more_body
        connection.data_received(data[i:] + (HEALTH if i % 2 else b""))
        cycle = connection.cycle
        assert (bytes(cycle.body), cycle.more_body, cycle.keep_alive) == (b"{}", False, False)
        # What comes behind is not read, now or later.
        connection.data_received(HEALTH)
        assert connection.cycle is cycle
        assert bytes(cycle.body) == b"{}"


def test_a_trailer_behind_a_request_for_another_protocol_is_bounded() -> None:
    wire = Wire()
    connection = opened(Clock(), Connections(SETTINGS), wire)
    connection.data_received(b"POST / HTTP/1.1\r\n" + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ")
    for _ in range(4):
        connection.data_received(b"a" * 10_000)
    assert wire.is_closed


def test_a_client_that_resets_its_connection_leaves_nothing(
    scripted_model: HostedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[HttpProtocol]] = []
    begin = HttpProtocol.connection_made
    with serving(scripted_model) as live, ExitStack() as stack:
        monkeypatch.setattr(
            HttpProtocol,
            "connection_made",
            lambda self, transport: (made.append(weakref.ref(self)), begin(self, transport))[1],
        )
        connection = connect(stack, live)
        connection.sendall(HEALTH)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        (protocol,) = made

        def is_gone() -> bool:
            gc.collect()
            return protocol() is None

        wait_for(is_gone)


def test_who_asks_is_no_matter_of_a_header(
    scripted_model: HostedModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    scripted_model.loaded = None
    with running([scripted_model]) as live:
        live.http.post("/v1/tokenize", json={"model": "scripted", "prompt": ""})
        turns = admission(live)
        check = turns.check
        monkeypatch.setattr(turns, "check", lambda client, n: (asked.append(client), check(client, n))[1])
        body = {"model": "scripted", "messages": [{"role": "user", "content": "hum"}]}
        headers = {
            "X-Forwarded-For": "203.0.113.9",
            "Forwarded": "for=203.0.113.9",
            "X-Real-IP": "203.0.113.9",
        }
        assert live.http.post(CHAT, json=body, headers=headers).status_code == 200
    assert set(asked) == {"127.0.0.1"}
    assert "203.0.113.9" not in capfd.readouterr().err
