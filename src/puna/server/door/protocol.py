"""HTTP/1.1 on a connection: uvicorn's, with bounds on how long and how much a client may keep it waiting."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from puna.server.services import Services
from puna.server.settings import ServerSettings

__all__ = ["HttpProtocol"]

_MAX_HEAD_BYTES = 32 * 1024
_LINGER_S = 2.0  # for a client to read its response while it still sends a body that nobody wants


class HttpProtocol(HttpToolsProtocol):
    """Bounds a request's head in bytes and in time, and ends connections whose body is not read to its end.

    uvicorn waits for ever for a head of any length, for the rest of a body once it was answered, and for a
    client that does not read what it is sent.
    """

    _n_head_bytes = 0
    _overdue: asyncio.TimerHandle | None = None  # while a head is waited for
    _leaving: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None  # while a client reads nothing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        # Told as soon as anything is not taken: else the last of it could wait for ever.
        transport.set_write_buffer_limits(0)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_waiting()
        self._stop_leaving()
        self._stop_stalling()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._settings.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio."""
        self._stop_stalling()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        before = self._overdue
        super().data_received(data)
        if before is not None and before is self._overdue:  # all of it belongs to one head
            self._n_head_bytes += len(data)
            if self._n_head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The headers are too long.")

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
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
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._leaving is not None:
            self._stop_leaving()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._stop_leaving()
            self._leaving = self.loop.call_later(_LINGER_S, self.transport.close)

    def _unsupported_upgrade_warning(self) -> None:
        # The parser reads no further on such a connection.
        self.cycle.keep_alive = False

    @property
    def _settings(self) -> ServerSettings:
        services: Services = self.config.app.state.services  # type: ignore[union-attr]
        return services.settings

    def _await_head(self) -> None:
        if self._overdue is None:
            self._n_head_bytes = 0
            self._overdue = self.loop.call_later(self._settings.read_timeout_s, self._give_up)

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
