"""What a chat format is: the one way in which a model was taught to read a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from puna.errors import PromptFormatError
from puna.prompt.family import ToolForm
from puna.prompt.messages import Assistant, Content, Image, Message, parts_of
from puna.prompt.preamble import Preamble
from puna.tokens import Tokenizer

__all__ = ["BaseFormat", "ChatFormat", "Piece", "Special", "check_continues", "encode_plain", "text_only"]


@dataclass(frozen=True, slots=True)
class Special:
    """A special token in a prompt that is not yet encoded; a plain text there never becomes one.

    Attributes:
        text: how the token is written.
    """

    text: str


Piece = str | Special
"""What prompts are made of before they are ids: text to be encoded by itself, or a special token."""


class ChatFormat(Protocol):
    """Turns conversations into token ids, so that no text in them can pass for a special token."""

    name: str  # for people: "llama3.1", "template" or "base"
    stop_ids: frozenset[int]  # tokens after which the model is done
    call_form: ToolForm  # how the model was taught to spell calls of custom tools

    def encode_chat(
        self, messages: Sequence[Message], *, continue_last: bool = False, preamble: Preamble | None = None
    ) -> list[int]:
        """Encode a conversation, ready for the model to speak.

        Args:
            messages: the conversation so far.
            continue_last: leave the last message open, an assistant's, so that the model goes on with
                it; otherwise the ids end with the opening of a new assistant message.
            preamble: tools and the date to tell the model; None adds nothing to the messages.

        Returns:
            Token ids, the opening of the text included.

        Raises:
            PromptFormatError: the model has no such format or does not take these messages.
        """
        ...

    def encode_text(self, content: Content) -> list[int]:
        """Encode a text for plain completion, with the token that opens a text where the model wants one."""
        ...


class BaseFormat:
    """The format of a base model, which completes text and was taught no conversations."""

    name = "base"
    call_form: ToolForm = "json"

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Use a vocabulary.

        Args:
            tokenizer: the model's.
        """
        self._tokenizer = tokenizer
        self.stop_ids = frozenset(tokenizer.eos_ids)

    def encode_chat(
        self, messages: Sequence[Message], *, continue_last: bool = False, preamble: Preamble | None = None
    ) -> list[int]:
        """Refuse: see `ChatFormat.encode_chat`.

        Raises:
            PromptFormatError: always.
        """
        raise PromptFormatError(
            "this is a base model: it has no chat format; use plain completion, or an instruct model to chat"
        )

    def encode_text(self, content: Content) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return encode_plain(self._tokenizer, text_only(content, "this model"))


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a plain text, after the opening token where the vocabulary asks for it."""
    opening = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    return opening + tokenizer.encode(text)


def text_only(content: Content, who: str) -> str:
    """A content's text.

    Args:
        content: texts.
        who: the model, for the message.

    Raises:
        PromptFormatError: there is a picture in it.
    """
    parts: Iterable[str | Image] = parts_of(content)
    texts = []
    for part in parts:
        if isinstance(part, Image):
            raise PromptFormatError(f"{who} reads text only, and a message has a picture in it")
        texts.append(part)
    return "".join(texts)


def check_continues(messages: Sequence[Message]) -> None:
    """Insist that the last message can be left open.

    Args:
        messages: the conversation.

    Raises:
        PromptFormatError: there is no last message, it is not the assistant's, or it calls tools.
    """
    if not messages or not isinstance(messages[-1], Assistant):
        found = type(messages[-1]).__name__.lower() if messages else "none"
        raise PromptFormatError(f"to be continued, the last message must be the assistant's, got {found}")
    if messages[-1].tool_calls:
        raise PromptFormatError("to be continued, the last message must not call tools: a call is complete")
