"""The routes, a group a file: each reads a body, asks `answers` or `hosting`, and replies.

To add a group write its schemas, then a file with a ``router`` here, and name it in `ROUTERS`. Imports the
rest of `puna.server`. Start at `chat.py`.
"""

from puna.server.routes import (
    admin,
    chat,
    compaction,
    completions,
    conversations,
    embeddings,
    messages,
    models,
    prompts,
    responses,
    stored_chat,
    stored_responses,
    system,
    tokens,
)

# A request is matched with them in this order, so those that answer come first.
_GROUPS = (
    chat, completions, responses, compaction, messages, embeddings, tokens, system, models, stored_chat,
    stored_responses, conversations, prompts, admin,
)  # fmt: skip

ROUTERS = tuple(group.router for group in _GROUPS)
"""What is served under ``/v1`` and under ``/v1/openai/v1``."""
