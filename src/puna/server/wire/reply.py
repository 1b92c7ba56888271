"""Responses: one document, or a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from puna.server.errors import as_api_error, error_body, respond_to
from puna.server.schemas.base import NamedEvent, Reply, Written
from puna.server.wire.gone import UnlessGone

__all__ = ["STREAMED", "event_stream", "json_reply", "stored_reply", "unless_gone", "written_reply"]

T = TypeVar("T")
Event = Reply | Written

_HEADERS = [(b"cache-control", b"no-cache"), (b"content-type", b"text/event-stream; charset=utf-8")]

_WITHOUT_DONE = "/v1/openai/"  # whose clients, Llama Stack's old ones, take every event for JSON

# Ends of lines to many clients, if not by the rules of streams of events; in JSON they stand in strings only.
_LINE_ENDS = {each: f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}

_TEXT = {"type": "string"}
_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {"event": _TEXT, "data": _TEXT},
    "required": ["data"],
}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}
"""For the document of a route that streams where it is asked to."""


def json_reply(reply: Reply) -> Response:
    """A document as a response."""
    return written_reply(reply.as_json())


def written_reply(document: str | bytes) -> Response:
    """JSON that was written already, as a response."""
    return Response(document, media_type="application/json")


def stored_reply(values: Mapping[str, Any]) -> Response:
    """What the server has kept as it sent it, as a response; to check it again would take longer."""
    return written_reply(json.dumps(values, separators=(",", ":")))


def event_stream(request: Request, replies: AsyncGenerator[Event], *, has_done: bool = True) -> Response:
    """Server-sent events, those that have a name with it.

    What goes wrong before the first event is an error response; later it is an event. There may be none.

    Args:
        request: the client's, its body read.
        replies: the events; closed where the client goes away.
        has_done: whether ``[DONE]`` is sent behind the last one.
    """
    return _EventStream(request, replies, has_done)


class _EventStream(Response):
    """Sends events as they come. It watches the client in one task from before the first one to the end."""

    def __init__(self, request: Request, replies: AsyncGenerator[Event], has_done: bool) -> None:
        # Not the parent's, which would look for the same headers each time, before the answer begins.
        self.status_code, self.raw_headers, self.background = 200, _HEADERS, None
        self._request = request
        self._replies = replies
        self._has_done = has_done and not request.scope["path"].startswith(_WITHOUT_DONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        try:
            async with UnlessGone(self._request), aclosing(self._replies):
                first = await anext(self._replies, None)
                has_begun = True
                await self._send(first, send)
        except Exception as error:
            if not has_begun:
                refusal = await respond_to(self._request, error)
                await refusal(scope, receive, send)
            elif not isinstance(error, ClientDisconnect):
                raise

    async def _send(self, first: Event | None, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            if first is not None:
                await send(_piece(_line(first)))
            async for reply in self._replies:
                await send(_piece(_line(reply)))
        except Exception as error:
            await send(_piece(self._error_line(error)))
        if self._has_done:
            await send(_piece("data: [DONE]\n\n"))
        await send({"type": "http.response.body", "body": b""})

    def _error_line(self, error: Exception) -> str:
        body = error_body(as_api_error(error), self._request.scope)
        name = f"event: {body['type']}\n" if "type" in body else ""
        return f"{name}data: {json.dumps(body)}\n\n"


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do something for a client, and stop when it goes away.

    Args:
        request: the client's, its body read.
        work: is cancelled where nobody waits for it any more.

    Raises:
        ClientDisconnect: nobody does.
    """
    async with UnlessGone(request):
        return await work


def _piece(text: str) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


def _line(reply: Event) -> str:
    name = f"event: {reply.type}\n" if isinstance(reply, NamedEvent | Written) else ""
    data = reply.as_json()
    if not data.isascii():
        for end, escaped in _LINE_ENDS.items():  # `translate` takes many times as long
            data = data.replace(end, escaped)
    return f"{name}data: {data}\n\n"
