"""Long conversations made short: the model sums them up, and goes on from the summary later."""

from __future__ import annotations

import base64
import binascii

from puna.errors import PromptFormatError
from puna.server.schemas.chat import ChatBody, UserMessage

__all__ = ["summary_request", "unwrapped", "wrapped"]

_MARK = "puna1."
_MAX_TOKENS = 1024
_TASK = (
    "Sum up our conversation so far, so that it can be gone on with from the summary alone: what was asked, "
    "what was found out and decided, and what is still to be done. Keep names, numbers and quotes exactly as "
    "they were. Write nothing but the summary."
)


def summary_request(chat: ChatBody) -> ChatBody:
    """The request for a summary of a conversation.

    Args:
        chat: the conversation.
    """
    return chat.model_copy(
        update={
            "messages": [*chat.messages, UserMessage(role="user", content=_TASK)],
            "max_completion_tokens": _MAX_TOKENS,
            "temperature": 0,
        }
    )


def wrapped(summary: str) -> str:
    """A summary as the ``encrypted_content`` of an item: opaque to clients, and no secret."""
    return _MARK + base64.urlsafe_b64encode(summary.encode("utf-8", "replace")).decode()


def unwrapped(content: str) -> str:
    """The summary in an item's ``encrypted_content``.

    Raises:
        PromptFormatError: it was not made here.
    """
    try:
        if not content.startswith(_MARK):
            raise ValueError("no mark")
        return base64.b64decode(content.removeprefix(_MARK), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise PromptFormatError(
            "a compaction's `encrypted_content` must be what `/responses/compact` of Puna gave, unchanged"
        ) from error
