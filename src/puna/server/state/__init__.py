"""What the server keeps: stored chat completions, responses, conversations, prompts.

A database behind SQLAlchemy Core: SQLite in the user's Puna folder, or PostgreSQL. Opened on first use.
Imports `puna.models`, and `puna.server.errors`; knows nothing of routes and answers. Start at `store.py` (how
routes read and write), then `tables.py`; one file a kind of object has its queries, which routes have from
here::

    await services.state.read(state.prompts.list_all, owner)
"""

from __future__ import annotations

from puna.server.state import completions, conversations, prompts, responses

__all__ = ["completions", "conversations", "prompts", "responses"]
