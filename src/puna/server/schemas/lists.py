"""Lists in pages, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

from fastapi import Query

from puna.server.schemas.base import Reply

__all__ = ["After", "Ends", "Limit", "ListReply", "ModelFilter", "OrderOf", "ends"]

After = Annotated[
    str | None, Query(max_length=256, description="Begin behind the entry of this id, in the list's order.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="At most so many entries.")]
ModelFilter = Annotated[
    str | None, Query(max_length=512, pattern=r"^[^\x00]*$", description="Only those of this model.")
]
OrderOf = Annotated[Literal["asc", "desc"], Query(description="`asc` has the oldest first.")]


class ListReply(Reply):
    """A page of a list."""

    object: Literal["list"] = "list"
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


class Ends(TypedDict):
    """The fields of a page that name its first and last entry."""

    first_id: str | None
    last_id: str | None


def ends(ids: Sequence[str]) -> Ends:
    """The first and the last id of a page."""
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
