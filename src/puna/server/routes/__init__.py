"""The routes, a group a file: each reads a body, asks `answers` or `hosting`, and replies.

To add a group write its schemas, then a file with a ``router`` here, and name it in `ROUTERS`. Imports the
rest of `puna.server`. Start at `chat.py`.
"""

from puna.server.routes import admin, chat, completions, embeddings, models, stored_chat, system, tokens

ROUTERS = tuple(m.router for m in (chat, stored_chat, completions, embeddings, models, tokens, system, admin))
"""What is served under ``/v1`` and under ``/v1/openai/v1``."""
