"""Items of conversations are found by their ids, whichever conversation they are in."""

from __future__ import annotations

from alembic import op

__all__ = ["upgrade"]

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("puna_items_id", "puna_items", ["id"])
