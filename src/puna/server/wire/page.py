"""Pages of lists as responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from starlette.responses import Response

from puna.server.schemas.lists import ListReply, ends
from puna.server.state.pages import PageOf

__all__ = ["page_reply"]

T = TypeVar("T")


class _Entry(Protocol):
    id: str

    def as_json(self) -> str: ...


async def page_reply(page: PageOf[T], entry_of: Callable[[T], _Entry]) -> Response:
    """A page as a response. It may be megabytes, so it is written in a thread, and entry by entry.

    In one go a thread would hold up everybody as much: neither checking nor writing lets others in between.

    Args:
        page: what was found.
        entry_of: makes of it what is sent.
    """
    return await asyncio.to_thread(_written, page, entry_of)


def _written(page: PageOf[T], entry_of: Callable[[T], _Entry]) -> Response:
    ids, texts = [], []
    for found in page.entries:
        entry = entry_of(found)  # not kept: with all of them, the garbage collector takes its time
        ids.append(entry.id)
        texts.append(entry.as_json())
    rest = ListReply(object="list", has_more=page.has_more, **ends(ids)).as_json()
    return Response(f'{rest[:-1]},"data":[{",".join(texts)}]}}', media_type="application/json")
