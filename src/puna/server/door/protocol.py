"""HTTP/1.1 on a connection: uvicorn's, with bounds on how long and how much a client may keep it waiting."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from puna.server.door.unread import unread_bytes
from puna.server.errors import ApiError
from puna.server.settings import ServerSettings
from puna.server.watch.log import log

__all__ = ["Connections", "HttpProtocol"]

_MAX_HEAD_BYTES = 32 * 1024  # and as much beside the body's own bytes: lengths of chunks, trailers
_LINGER_S = 2.0  # for a client to read its response while it still sends a body that nobody wants
_MAX_UNREAD_BYTES = 256 * 1024 * 1024  # of all clients together
_LARGE_BYTES = 64 * 1024  # what is smaller needs no look at all the others


class Connections(ServerState):
    """What all connections of a server share.

    Attributes:
        settings: bounds.
        idle: those without a request, the one that is so for the longest first.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Start without any.

        Args:
            settings: how many there may be, and how long each may keep the server waiting.
        """
        super().__init__()
        self.settings = settings
        self.idle: dict[HttpProtocol, None] = {}


class HttpProtocol(HttpToolsProtocol):
    """Bounds how many connections are open, and how long and how much each may keep the server waiting.

    uvicorn takes any number of them, and waits for ever for a head or trailer of any length, for the rest of
    a body once it was answered, and for a client that does not read what it is sent. What a client sends
    behind a request before it is answered is not read at all: uvicorn would keep any number of such requests,
    and not notice any more that the client goes away.
    """

    server_state: Connections
    _n_head_bytes = 0
    _n_bare_bytes = 0  # since the last of a body or the end of a head, whichever came later
    _n_unread_bytes = 0
    _stalled_since_s = 0.0  # by the loop's clock
    _is_deaf = False
    _overdue: asyncio.TimerHandle | None = None  # while a head is waited for
    _leaving: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None  # while not all is taken that was sent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        # Told as soon as anything is not taken: else the last of it could wait for ever.
        transport.set_write_buffer_limits(0)
        if len(self.connections) > self.server_state.settings.max_connections:
            self._make_room()
        if not transport.is_closing():
            self.server_state.idle[self] = None
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_waiting()
        self._stop_leaving()
        self._stop_stalling()
        self._unset_keepalive_if_required()  # uvicorn does not where the client resets the connection
        self.server_state.idle.pop(self, None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._stalled_since_s = self.loop.time()
        self._await_reader()
        if self.transport.get_write_buffer_size() > _LARGE_BYTES:
            self._bound_unread()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._stop_stalling()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._is_deaf:
            return
        self._n_bare_bytes += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._is_deaf or self.transport.is_closing():
            return
        if self._n_bare_bytes > _MAX_HEAD_BYTES:
            self.send_400_response("The headers are too long.")
        elif not self._has_request and self._leaving is None and self.timeout_keep_alive_task is None:
            self._await_head()  # empty lines begin no request, and would keep the connection for ever

    def send_400_response(self, msg: str) -> None:
        """See uvicorn, which sends plain text."""
        if self._has_request and not self.cycle.more_body:  # it is answered first
            self._is_deaf = True
            self.cycle.keep_alive = False
            return
        log("bad_request", problem=msg)
        if self._leaving is not None or (self._has_request and self.cycle.response_started):
            self.transport.close()  # a second answer would seem to be one to the next request
        else:
            body = json.dumps(ApiError(400, msg).body()).encode()
            head = [b"HTTP/1.1 400 Bad Request", *map(b": ".join, self.server_state.default_headers)]
            head += [b"content-type: application/json", b"content-length: %d" % len(body)]
            self.transport.write(b"\r\n".join([*head, b"connection: close", b"", body]))
            self.transport.close()

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._has_request:
            raise ValueError("the one before is not answered yet")
        super().on_message_begin()
        self._n_head_bytes = 0
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._overdue is None:
            return  # behind the body, where nobody would check it
        self._n_head_bytes += len(name) + len(value)
        if self._n_head_bytes > _MAX_HEAD_BYTES:
            raise ValueError("the headers are too long")  # uvicorn answers with 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._stop_waiting()
        self._n_bare_bytes = 0
        self.server_state.idle.pop(self, None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._n_bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self.parser.should_upgrade():
            return  # its body is still to come: `_read_on`
        if self._leaving is not None:
            self._stop_leaving()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self.server_state.idle[self] = None
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._stop_leaving()
            self._leaving = self.loop.call_later(_LINGER_S, self.transport.close)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _read_on(self, data: bytes) -> None:
        """Take the body of a request to speak another protocol, which is answered in this one.

        The parser skips it, so that another one reads it, behind a head of the same length, and nothing more.
        Java's client sends such requests unless it is told not to.

        Args:
            data: what came behind the head.
        """
        self.cycle.keep_alive = False
        lengths = [each for each in self.headers if each[0] in (b"content-length", b"transfer-encoding")]
        head = [b"POST / HTTP/1.1", b"connection: close", *map(b": ".join, lengths), b"\r\n"]
        callbacks = SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
        self.parser = httptools.HttpRequestParser(callbacks)
        self._feed(b"\r\n".join(head) + data)

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> None:
        """End the connection that has been idle for the longest, of those that read all if there are any.

        Where none is idle it is this one.
        """
        idle = self.server_state.idle
        has_read = (each for each in idle if not each.transport.get_write_buffer_size())
        last = next(has_read, None) or next(iter(idle), self)
        idle.pop(last, None)
        if last.transport.get_write_buffer_size():
            last.transport.abort()  # to be closed it would have to read on
        else:
            last.transport.close()

    def _bound_unread(self) -> None:
        """Cut off those that do not keep up, the longest first, while too much waits to be read."""
        stalled = [each for each in self.connections if isinstance(each, HttpProtocol) and each._stalled]
        n_bytes = sum(each.transport.get_write_buffer_size() for each in stalled)
        for each in sorted(stalled, key=lambda each: each._stalled_since_s):
            if n_bytes <= _MAX_UNREAD_BYTES:
                return
            n_bytes -= each.transport.get_write_buffer_size()
            each.transport.abort()

    def _await_reader(self) -> None:
        self._n_unread_bytes = unread_bytes(self.transport)
        self._stalled = self.loop.call_later(self.server_state.settings.write_timeout_s, self._check_reader)

    def _check_reader(self) -> None:
        """Cut off a client that has read nothing since the last time.

        Slow reading is fine at 2 KB a second. Systems tell of what was read in steps, of 128 KiB where Linux
        speaks to itself, so that in a minute much less may look like nothing.
        """
        if unread_bytes(self.transport) >= self._n_unread_bytes:
            self.transport.abort()
        else:
            self._await_reader()

    def _await_head(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(self.server_state.settings.read_timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._overdue = None
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _stop_leaving(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _stop_stalling(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
