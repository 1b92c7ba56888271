"""Connections: how many are open, who has to leave for others, and how slowly one may read."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any

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

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.n_unread

    def is_closing(self) -> bool:
        return self.is_cut or self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_cut, self.n_unread = True, 0


SETTINGS = ServerSettings(write_timeout_s=60, max_requests=1, max_connections=17)


def connected(clock: Clock, state: Connections, wire: Wire) -> HttpProtocol:
    """A connection whose client has yet to read what waits on the wire, the last of an answer."""
    config: Any = SimpleNamespace(
        loaded=True,
        loaded_app=None,
        ws_protocol_class=None,
        root_path="",
        asgi_version="3.0",
        limit_concurrency=None,
        timeout_keep_alive=75,
    )
    connection = HttpProtocol(config, state, {}, clock)  # type: ignore[arg-type]
    connection.connection_made(wire)  # type: ignore[arg-type]
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
