"""The head of a response and the beginning of its body, sent together."""

from __future__ import annotations

import asyncio

__all__ = ["JoinedTransport"]


class JoinedTransport:
    """What one response is written to; it holds the head back until something follows, if that comes at once.

    uvicorn sends them one by one. Each time the client wakes up, and this thread has to wait for the
    interpreter, which the engine takes meanwhile: 0.1 ms of the time to the first token of a 1B model.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare for a response.

        Args:
            transport: of its connection.
            loop: what is not followed by anything in this round of it, is sent in the next one.
        """
        self._transport = transport
        self._loop = loop
        self._has_begun = False
        self._held = b""

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """See asyncio."""
        if self._has_begun:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        else:
            self._has_begun, self._held = True, data
            self._loop.call_soon(self._send_held)

    def close(self) -> None:
        """See asyncio."""
        self._send_held()
        self._transport.close()

    def _send_held(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""
