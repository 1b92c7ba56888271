"""Which items responses have, so that a request can name one by its id."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the table, and fill it with the items of all responses."""
    response = sa.ForeignKey("puna_responses.number", ondelete="CASCADE")
    made = op.create_table(
        "puna_response_items",
        sa.Column("response", _BIG, response, nullable=False),
        sa.Column("id", sa.String(128), nullable=False),
    )
    op.create_index("puna_response_items_response", "puna_response_items", ["response"])
    op.create_index("puna_response_items_id", "puna_response_items", ["id"])
    connection = op.get_bind()
    numbers = connection.execute(sa.text("SELECT number FROM puna_responses")).scalars().all()
    for number in numbers:  # one by one: each may be megabytes
        one = sa.text("SELECT body, input FROM puna_responses WHERE number = :number")
        body, given = connection.execute(one, {"number": number}).one()
        items = [*json.loads(given), *json.loads(body)["output"]]
        if items:
            op.bulk_insert(made, [{"response": number, "id": item["id"]} for item in items])
