"""Conversations as token ids, and which of the tokens the model is to learn: those that it will say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from puna.errors import ConfigError
from puna.prompt.format import ChatFormat
from puna.prompt.messages import Assistant, Message, User

__all__ = ["Example", "encode_answer", "encode_conversation"]


@dataclass(frozen=True, slots=True)
class Example:
    """A text with the places that are learned.

    Attributes:
        ids: token ids.
        said: for each, whether the model says it.
    """

    ids: list[int]
    said: list[bool]


def encode_conversation(chat: ChatFormat, messages: Sequence[Message]) -> Example:
    """Encode a conversation exactly as it is when the model runs.

    What the assistant says begins where a prompt of all messages before it ends, and ends with the token
    at which generation would stop; that token is learned too. Messages behind the last of the assistant
    are left out.

    Args:
        chat: the model's chat format.
        messages: at least one of the assistant's.

    Raises:
        PromptFormatError: the format does not take these messages.
        ConfigError: the format writes what was said before in another way once there is more.
    """
    turns = [i for i, message in enumerate(messages) if isinstance(message, Assistant)]
    ids: list[int] = []
    said: list[bool] = []
    for i in turns:
        prompt = chat.encode_chat(messages[:i])
        whole = _through(chat, messages, i, prompt, ids)
        said = said + [False] * (len(prompt) - len(said)) + [True] * (len(whole) - len(prompt))
        ids = whole
    return Example(ids, said)


def encode_answer(chat: ChatFormat, messages: Sequence[Message], answer: Assistant) -> Example:
    """Encode one answer: only its tokens are learned, not what the assistant said before.

    Args:
        chat: the model's chat format.
        messages: what comes before it.
        answer: the answer.

    Raises:
        PromptFormatError: the format does not take these messages.
        ConfigError: as `encode_conversation`.
    """
    example = encode_conversation(chat, [*messages, answer])
    n_prompt = len(chat.encode_chat(messages))
    return Example(example.ids, [place >= n_prompt for place in range(len(example.ids))])


def _through(
    chat: ChatFormat, messages: Sequence[Message], last: int, prompt: list[int], before: list[int]
) -> list[int]:
    """Ids up to the end of a message of the assistant's, the token that ends it included."""
    # Some formats write the end of an answer only where something follows.
    behind = messages[last + 1 : last + 2] or [User("?")]
    ids = chat.encode_chat([*messages[: last + 1], *behind])
    if ids[: len(prompt)] != prompt or ids[: len(before)] != before:
        raise ConfigError(
            f"messages[{last}]: the chat format writes the messages before this one in another way when it "
            "is there, so that training would show what a prompt never is; train on one answer a line"
        )
    # No text becomes a special token, so the first one that ends a turn ends this answer.
    ends = [place for place in range(len(prompt), len(ids)) if ids[place] in chat.stop_ids]
    if not ends:
        raise ConfigError(
            f"messages[{last}]: the chat format ends answers with no token that stops the model"
        )
    return ids[: ends[0] + 1]
