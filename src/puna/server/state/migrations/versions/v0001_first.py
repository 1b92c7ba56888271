"""Stored chat completions, responses, conversations, prompts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _owned(
        "completions",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
    )
    op.create_table(
        "puna_completion_labels",
        _part_of("completions", "completion"),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
        sa.UniqueConstraint("completion", "name"),
    )
    _owned(
        "responses",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("previous", sa.String(128)),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("alive_at", sa.BigInteger),
    )
    op.create_index("puna_responses_previous", "puna_responses", ["previous"])
    _owned("conversations", sa.Column("labels", sa.Text, nullable=False))
    op.create_table(
        "puna_items",
        sa.Column("number", _BIG, primary_key=True, autoincrement=True),
        _part_of("conversations", "conversation"),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint("conversation", "id"),
        sqlite_autoincrement=True,
    )
    op.create_index("puna_items_order", "puna_items", ["conversation", "number"])
    _owned("prompts", sa.Column("default_version", sa.Integer, nullable=False))
    op.create_table(
        "puna_prompt_versions",
        _part_of("prompts", "prompt"),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint("prompt", "version"),
    )


def _owned(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        f"puna_{name}",
        sa.Column("number", _BIG, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        *columns,
        sqlite_autoincrement=True,
    )
    op.create_index(f"puna_{name}_owner", f"puna_{name}", ["owner", "number"])


def _part_of(table: str, name: str) -> sa.Column[int]:
    whole = sa.ForeignKey(f"puna_{table}.number", ondelete="CASCADE")
    return sa.Column(name, _BIG, whole, nullable=False)
