"""Lists in pages: everything behind a certain entry, so many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from puna.server.errors import ApiError

__all__ = ["Order", "Page", "PageOf", "no_such_entry", "paged"]

Order = Literal["asc", "desc"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Which entries are wanted.

    Attributes:
        after: id of the entry before the first one; None: from the beginning.
        limit: at most so many.
        order: ``asc`` is the oldest first.
    """

    after: str | None = None
    limit: int = 20
    order: Order = "desc"


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """Entries of a page.

    Attributes:
        entries: in their order.
        has_more: whether others follow.
    """

    entries: list[T]
    has_more: bool


def paged(entries: list[dict[str, Any]], page: Page) -> PageOf[dict[str, Any]]:
    """A page of entries that are at hand, the oldest first; see `fetch_page`."""
    if page.order == "desc":
        entries = entries[::-1]
    start = 0
    if page.after is not None:
        found = [index for index, entry in enumerate(entries) if entry["id"] == page.after]
        if not found:
            raise no_such_entry(page.after)
        start = found[-1] + 1
    return PageOf(entries[start : start + page.limit], len(entries) > start + page.limit)


def no_such_entry(after: str) -> ApiError:
    """The error where a page is to begin behind what is not in the list."""
    return ApiError(400, f"`after` must be the id of an entry of the list, got {after!r:.200}", param="after")
