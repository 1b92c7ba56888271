"""Lists as responses, in pages or whole.

They may be megabytes, so they are written in a thread, and entry by entry. In one go a thread would hold up
everybody as much: neither checking nor writing lets others in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from starlette.responses import Response

from puna.server.schemas.lists import ListReply, ends
from puna.server.state.pages import PageOf
from puna.server.wire.reply import written_reply

__all__ = ["page_reply", "whole_reply"]

T = TypeVar("T")


class _Written(Protocol):
    def as_json(self) -> str: ...


class _Entry(_Written, Protocol):
    id: str


async def page_reply(page: PageOf[T], entry_of: Callable[[T], _Entry]) -> Response:
    """A page as a response.

    Args:
        page: what was found.
        entry_of: makes of it what is sent.
    """
    return await asyncio.to_thread(_page, page, entry_of)


async def whole_reply(found: Sequence[T], entry_of: Callable[[T], _Written]) -> Response:
    """A list without pages as a response, as Llama Stack has them; arguments as for `page_reply`."""
    return await asyncio.to_thread(_whole, found, entry_of)


def _whole(found: Sequence[T], entry_of: Callable[[T], _Written]) -> Response:
    texts = [entry_of(each).as_json() for each in found]
    return written_reply(f'{{"data":[{",".join(texts)}]}}')


def _page(page: PageOf[T], entry_of: Callable[[T], _Entry]) -> Response:
    ids, texts = [], []
    for found in page.entries:
        entry = entry_of(found)  # not kept: with all of them, the garbage collector takes its time
        ids.append(entry.id)
        texts.append(entry.as_json())
    rest = ListReply(object="list", has_more=page.has_more, **ends(ids)).as_json()
    return written_reply(f'{rest[:-1]},"data":[{",".join(texts)}]}}')
