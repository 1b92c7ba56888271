"""The tables. A change here needs a migration, see `migrations`; a test compares both.

What clients wrote is kept as JSON with escapes, because PostgreSQL's texts and its own JSON type refuse
characters that JSON has. Every row has an owner: the name of the key that it was made with, empty where the
server asks for none. A `number` gives the order in which rows came.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

__all__ = [
    "MAX_AT_ONCE",
    "METADATA",
    "NOBODY",
    "Json",
    "completion_labels",
    "completions",
    "conversations",
    "items",
    "prompt_versions",
    "prompts",
    "responses",
]

MAX_ID = 128
"""Characters of an id."""
MAX_AT_ONCE = 16 * 1024 * 1024
"""Characters of JSON that are read for one request; values take some ten times as many bytes."""
NOBODY = "(deleted)"
"""Owner of what is still to be deleted; no key can have that name."""
_MAX_OWNER = 256

METADATA = MetaData()


class Json(TypeDecorator[Any]):
    """A JSON value as a text of ASCII characters."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """See SQLAlchemy."""
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """See SQLAlchemy."""
        return None if value is None else json.loads(value)


def _number() -> Column[int]:
    return Column(
        "number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )


def _owned(name: str, *columns: Any) -> Table:
    return Table(
        f"puna_{name}",
        METADATA,
        _number(),
        Column("id", String(MAX_ID), nullable=False, unique=True),
        Column("owner", String(_MAX_OWNER), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        *columns,
        Index(f"puna_{name}_owner", "owner", "number"),
        sqlite_autoincrement=True,  # a number never comes twice, or pages would
    )


def _part_of(table: Table, name: str) -> Column[int]:
    return Column(
        name,
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey(table.c.number, ondelete="CASCADE"),
        nullable=False,
    )


completions = _owned(
    "completions",
    Column("model", String(512), nullable=False),
    Column("body", Json, nullable=False),
    Column("messages", Json, nullable=False),
)
"""Stored chat completions: what was sent, and the messages that it answers."""

completion_labels = Table(
    "puna_completion_labels",
    METADATA,
    _part_of(completions, "completion"),
    Column("name", String(64), nullable=False),
    Column("value", String(512), nullable=False),
    UniqueConstraint("completion", "name"),
)
"""Their `metadata`, by which they are looked for."""

responses = _owned(
    "responses",
    Column("model", String(512), nullable=False),
    Column("status", String(32), nullable=False),
    Column("previous", String(MAX_ID)),
    Column("body", Json, nullable=False),
    Column("input", Json, nullable=False),
    Column("alive_at", BigInteger),
    Index("puna_responses_previous", "previous"),
)
"""Responses: as they were sent, with their own input items. `alive_at` is when the server that computes it in
the background last said that it still does."""

response_items = Table(
    "puna_response_items",
    METADATA,
    _part_of(responses, "response"),
    Column("id", String(MAX_ID), nullable=False),
    Index("puna_response_items_response", "response"),
    Index("puna_response_items_id", "id"),
)
"""Ids of the items that they have, of input and output; the same one may be in many."""

conversations = _owned("conversations", Column("labels", Json, nullable=False))
"""Conversations and their `metadata`."""

items = Table(
    "puna_items",
    METADATA,
    _number(),
    _part_of(conversations, "conversation"),
    Column("id", String(MAX_ID), nullable=False),
    Column("body", Json, nullable=False),
    UniqueConstraint("conversation", "id"),
    Index("puna_items_order", "conversation", "number"),
    Index("puna_items_id", "id"),
    sqlite_autoincrement=True,
)
"""What was said in them, in its order."""

prompts = _owned("prompts", Column("default_version", Integer, nullable=False))
"""Prompts, and which version is meant where none is named."""

prompt_versions = Table(
    "puna_prompt_versions",
    METADATA,
    _part_of(prompts, "prompt"),
    Column("version", Integer, nullable=False),
    Column("body", Json, nullable=False),
    UniqueConstraint("prompt", "version"),
)
"""Their texts and variables."""
