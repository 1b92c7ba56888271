"""How much a request may bring, and how long it may take to bring it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.server.door.asgi import header, refuse
from puna.server.errors import ApiError
from puna.server.settings import ServerSettings

__all__ = ["SizeCheck"]

_MAX_HEADERS = 100
_MAX_PATH = 2048
_LARGE_BODIES = 64  # bodies of the largest size that are held at once, or as many bytes of smaller ones


@dataclass(slots=True)
class _Body:
    n_bytes: int = 0
    is_read: bool = False


class SizeCheck:
    """Refuses large requests before they are read, and slow ones while they are."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind.
            settings: limits.
        """
        self._app = app
        self._max_body_bytes = settings.max_body_bytes
        self._timeout_s = settings.read_timeout_s
        self._n_held = 0  # bytes of all bodies whose requests are open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            await refuse(scope, receive, send, error)
            return
        body = _Body()
        try:
            await self._app(scope, self._limited(receive, body), send)
        finally:
            self._n_held -= body.n_bytes

    def _check(self, scope: Scope) -> None:
        if len(scope["headers"]) > _MAX_HEADERS:
            raise ApiError(431, f"a request may have {_MAX_HEADERS} headers, got {len(scope['headers'])}")
        if len(scope["raw_path"]) + len(scope["query_string"]) > _MAX_PATH:
            raise ApiError(414, f"a path may have {_MAX_PATH} characters")
        if header(scope, b"content-encoding") is not None:
            raise ApiError(415, "compressed bodies are not read; send it plain")
        length = header(scope, b"content-length")
        if length is not None and int(length) > self._max_body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive, body: _Body) -> Receive:
        deadline_s = time.monotonic() + self._timeout_s

        async def limited() -> Message:
            if body.is_read:  # what is waited for now is that the client goes away
                return await receive()
            try:
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, f"the body did not arrive within {self._timeout_s:g} s") from None
            n_new = len(message.get("body", b""))
            body.n_bytes += n_new
            self._n_held += n_new
            body.is_read = not message.get("more_body", False)
            if body.n_bytes > self._max_body_bytes:
                raise self._too_large()
            if self._n_held > _LARGE_BODIES * self._max_body_bytes:
                raise ApiError(
                    429,
                    "the server is busy: it holds as many bytes of bodies as it may; try again in 1 s",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": "1", "Connection": "close"},
                )
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"a body may have {self._max_body_bytes} bytes", code="body_too_large")
