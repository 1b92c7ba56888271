"""What a chat format is: the one way in which a model was taught to read a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from puna.errors import PromptFormatError
from puna.prompt.messages import Assistant, Message
from puna.tokens import Tokenizer

__all__ = ["BaseFormat", "ChatFormat", "check_continues", "encode_plain"]


class ChatFormat(Protocol):
    """Turns conversations into token ids, so that no text in them can pass for a special token."""

    name: str  # for people: "llama3", "template" or "base"
    stop_ids: frozenset[int]  # tokens after which the model is done

    def encode_chat(self, messages: Sequence[Message], *, continue_last: bool = False) -> list[int]:
        """Encode a conversation, ready for the model to speak.

        Args:
            messages: the conversation so far.
            continue_last: leave the last message open, an assistant's, so that the model goes on with
                it; otherwise the ids end with the opening of a new assistant message.

        Returns:
            Token ids, the opening of the text included.

        Raises:
            PromptFormatError: the model has no such format or does not take these messages.
        """
        ...

    def encode_text(self, text: str) -> list[int]:
        """Encode a text for plain completion, with the token that opens a text where the model wants one."""
        ...


class BaseFormat:
    """The format of a base model, which completes text and was taught no conversations."""

    name = "base"

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Use a vocabulary.

        Args:
            tokenizer: the model's.
        """
        self._tokenizer = tokenizer
        self.stop_ids = frozenset(tokenizer.eos_ids)

    def encode_chat(self, messages: Sequence[Message], *, continue_last: bool = False) -> list[int]:
        """Refuse: see `ChatFormat.encode_chat`.

        Raises:
            PromptFormatError: always.
        """
        raise PromptFormatError(
            "this is a base model: it has no chat format; use plain completion, or an instruct model to chat"
        )

    def encode_text(self, text: str) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return encode_plain(self._tokenizer, text)


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a plain text, after the opening token where the vocabulary asks for it."""
    opening = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    return opening + tokenizer.encode(text)


def check_continues(messages: Sequence[Message]) -> None:
    """Insist that the last message can be left open.

    Args:
        messages: the conversation.

    Raises:
        PromptFormatError: there is no last message, or it is not the assistant's.
    """
    if not messages or not isinstance(messages[-1], Assistant):
        found = type(messages[-1]).__name__.lower() if messages else "none"
        raise PromptFormatError(f"to be continued, the last message must be the assistant's, got {found}")
