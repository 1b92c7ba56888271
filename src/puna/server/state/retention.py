"""What is kept for a while only: stored chat completions, and responses that nothing younger goes on from."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from puna.server.state.tables import completions, responses

__all__ = ["sweep"]


def sweep(connection: Connection, before: int) -> int:
    """Delete what is old; conversations and prompts stay until their owner deletes them.

    Args:
        connection: writes.
        before: seconds since 1970.

    Returns:
        How many were deleted.
    """
    young = select(responses.c.id, responses.c.previous, responses.c.owner)
    kept = young.where(responses.c.created_at >= before).cte("kept", recursive=True)
    # With what it goes on from, however old that is.
    kept = kept.union(young.where(responses.c.id == kept.c.previous, responses.c.owner == kept.c.owner))
    n_responses = connection.execute(
        delete(responses).where(responses.c.created_at < before, responses.c.id.not_in(select(kept.c.id)))
    ).rowcount
    n_completions = connection.execute(delete(completions).where(completions.c.created_at < before)).rowcount
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1000)")
    return n_responses + n_completions
