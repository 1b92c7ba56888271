"""Who answers in a conversation: a model in this process, or one of a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, Self, Unpack

from puna.errors import PromptFormatError
from puna.prompt.messages import Message, System, User

if TYPE_CHECKING:
    from puna.cli.remote import RemoteAnswer, RemoteServer
    from puna.engine.request import Completion, Event, SamplingOptions
    from puna.llama import Llama, Stream

__all__ = ["Answer", "LocalTalker", "RemoteTalker", "Talker"]


class Answer(Protocol):
    """An answer on its way; see `puna.llama.Stream`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def __iter__(self) -> Iterator[Event]: ...

    def cancel(self) -> None:
        """End it early."""

    def result(self) -> Completion:
        """Wait for the rest of it."""


class Talker(Protocol):
    """Somebody to talk to."""

    name: str
    context_tokens: int

    def chat(self, messages: Sequence[Message], **options: Unpack[SamplingOptions]) -> Answer:
        """Answer a conversation."""

    def used_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that a conversation takes of the context."""


class LocalTalker:
    """A model in this process."""

    def __init__(self, llama: Llama) -> None:
        """Talk with a model.

        Args:
            llama: an instruct model.

        Raises:
            PromptFormatError: it is a base model.
        """
        if llama.info.chat_format == "base":
            raise PromptFormatError(
                f"{llama.info.name} is a base model, it has no chat format; use `puna complete`, or an "
                "instruct model"
            )
        self.llama = llama
        self.name = llama.info.name
        self.context_tokens = llama.engine.context_tokens

    def chat(self, messages: Sequence[Message], **options: Unpack[SamplingOptions]) -> Stream:
        """See `Talker.chat`."""
        return self.llama.chat(messages, **options)

    def used_tokens(self, messages: Sequence[Message]) -> int:
        """See `Talker.used_tokens`."""
        return len(self.llama.encode_chat(messages))


class RemoteTalker:
    """A model of a server."""

    def __init__(self, server: RemoteServer, model: str | None) -> None:
        """Find the model.

        Args:
            server: where it is.
            model: its name; None for the first that is served.

        Raises:
            ServerError: the server cannot be reached, or has no such model.
        """
        self._server = server
        described = server.get(f"models/{model or server.models()[0]}")
        self.name = described["id"]
        self.context_tokens = described["custom_metadata"]["context_length"]
        self._last: RemoteAnswer | None = None

    def chat(self, messages: Sequence[Message], **options: Unpack[SamplingOptions]) -> RemoteAnswer:
        """See `Talker.chat`."""
        said = [{"role": _role(message), "content": message.text} for message in messages]
        self._last = self._server.chat(self.name, said, options)
        return self._last

    def used_tokens(self, messages: Sequence[Message]) -> int:
        """What the last answer and its prompt took, which the server told."""
        if self._last is None:
            return 0
        usage = self._last.result().usage
        return usage.prompt_tokens + usage.completion_tokens


def _role(message: Message) -> str:
    return "system" if isinstance(message, System) else "user" if isinstance(message, User) else "assistant"
