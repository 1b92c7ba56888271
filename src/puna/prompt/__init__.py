"""Conversations to token ids: messages and roles, and the chat format of each kind of model.

Imports `puna.errors`, `puna.models` and `puna.tokens`; ``jinja2`` is loaded when a model's own
template is first used. Start reading at `format.py` (what a chat format is), then `select.py` (which
one a model gets). What holds everywhere: special tokens come from the format, never from a message.
"""

from puna.prompt.format import ChatFormat
from puna.prompt.messages import Assistant, Message, System, Tool, User, as_messages
from puna.prompt.select import chat_format

__all__ = [
    "Assistant",
    "ChatFormat",
    "Message",
    "System",
    "Tool",
    "User",
    "as_messages",
    "chat_format",
]
