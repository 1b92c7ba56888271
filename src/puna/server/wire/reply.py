"""Responses: one document, or a stream of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from puna.server.errors import as_api_error
from puna.server.schemas.base import Reply

__all__ = ["event_stream", "json_reply", "unless_gone"]

T = TypeVar("T")


def json_reply(reply: Reply) -> Response:
    """A document as a response."""
    return Response(reply.as_json(), media_type="application/json")


async def event_stream(request: Request, replies: AsyncGenerator[Reply]) -> Response:
    """Server-sent events with ``[DONE]`` at the end.

    What goes wrong before the first event is an error response; later it is an event.

    Args:
        request: the client's, its body read.
        replies: the events; closed where the client goes away.
    """
    try:
        first = await unless_gone(request, anext(replies))
    except BaseException:
        await replies.aclose()
        raise
    return StreamingResponse(
        _lines(first, replies), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do something for a client, and stop when it goes away.

    Args:
        request: the client's, its body read.
        work: is cancelled where nobody waits for it any more.

    Raises:
        ClientDisconnect: nobody does.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _lines(first: Reply, replies: AsyncGenerator[Reply]) -> AsyncIterator[str]:
    async with aclosing(replies):
        try:
            yield _line(first.as_json())
            async for reply in replies:
                yield _line(reply.as_json())
        except Exception as error:
            yield _line(json.dumps(as_api_error(error).body()))
    yield _line("[DONE]")


def _line(data: str) -> str:
    return f"data: {data}\n\n"
