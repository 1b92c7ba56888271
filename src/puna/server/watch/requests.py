"""One line of the log and one count for every request, under an id that the client is told."""

from __future__ import annotations

import asyncio
import time

from opentelemetry.trace import Span, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.server.errors import error_response, failed, shutting_down
from puna.server.ids import new_id
from puna.server.watch.log import log, log_error, request_id
from puna.server.watch.metrics import Metrics
from puna.server.watch.traces import describe, request_span

__all__ = ["RequestLog"]

_UNKNOWN = "(none)"


class RequestLog:
    """Stands outermost: whatever fails behind it ends here."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind.
            metrics: counts requests.
            tracer: records them.
        """
        self._app = app
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_span(self._tracer, scope) as span:
            await self._serve(scope, receive, send, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        name = new_id("req_", 8)
        request_id.set(name)
        started_s, status = time.perf_counter(), 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except Exception as error:
            log_error(error)
            if not status:
                await error_response(failed(), scope)(scope, receive, marked)
        except asyncio.CancelledError:  # the server ends, and cannot wait for this any more
            if status:
                raise
            await error_response(shutting_down(), scope)(scope, receive, marked)
        finally:
            # The pattern, not the path: a path may be of any length and hold anything.
            route: str = getattr(scope.get("route"), "path", None) or scope.get("puna.route", _UNKNOWN)
            self._metrics.on_request(scope["method"], route, status)
            describe(span, scope["method"], route, status, name)
            log(
                "request",
                method=scope["method"],
                route=route,
                status=status or None,
                ms=round(1000 * (time.perf_counter() - started_s), 1),
                client=scope.get("puna.client"),
            )
