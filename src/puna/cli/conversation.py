"""A conversation as it is kept between answers, and as a file."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from puna.engine.request import SamplingOptions, SamplingParams
from puna.errors import ConfigError, PunaError, StoreError, nearest
from puna.models.files import read_json_object
from puna.prompt.messages import Assistant, Message, System, Tool, User, as_messages

__all__ = ["SETTINGS", "Conversation", "parse_setting"]

SETTINGS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "max_tokens",
    "stop",
)
"""Fields of `SamplingParams` that may be changed in a conversation."""

_ROLES: dict[type[Message], str] = {System: "system", User: "user", Assistant: "assistant", Tool: "tool"}


@dataclass(slots=True)
class Conversation:
    """What was said so far, and how answers are drawn.

    Attributes:
        system: standing instructions, None for the model's own.
        turns: all other messages.
        settings: how answers are drawn.
    """

    system: str | None = None
    turns: list[Message] = field(default_factory=list)
    settings: SamplingParams = field(default_factory=SamplingParams)

    def messages(self, turns: list[Message]) -> list[Message]:
        """The system message, where there is one, and these turns."""
        return turns if self.system is None else [System(self.system), *turns]

    def options(self) -> SamplingOptions:
        """The settings as keywords for `Llama.chat`."""
        return {name: getattr(self.settings, name) for name in SETTINGS}  # type: ignore[return-value]

    def set(self, name: str, text: str) -> None:
        """Change a setting.

        Args:
            name: one of `SETTINGS`.
            text: its new value; ``none`` for a seed drawn anew, no limit, no stop text.

        Raises:
            ConfigError: there is no such setting, or its value is out of range.
        """
        if name not in SETTINGS:
            raise ConfigError(f"no setting is called {name!r}; {nearest(name, SETTINGS)}")
        self.settings = replace(self.settings, **{name: parse_setting(name, text)})

    def up_to_last_user(self) -> list[Message]:
        """The turns up to the last thing that the user said.

        Raises:
            ConfigError: the user has said nothing yet.
        """
        for i in range(len(self.turns), 0, -1):
            if isinstance(self.turns[i - 1], User):
                return self.turns[:i]
        raise ConfigError("there is no answer to give again; say something first")

    def save(self, path: Path) -> None:
        """Write the conversation to a file, all of it or nothing.

        Raises:
            StoreError: the file cannot be written, or holds something else than a conversation.
        """
        if path.exists():
            try:
                Conversation.load(path)
            except PunaError as error:
                raise StoreError(
                    f"{path} exists and is not a saved conversation; choose another name"
                ) from error
        document = {
            "messages": [_to_mapping(message) for message in self.messages(self.turns)],
            "settings": self.options(),
        }
        _write_atomically(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file cannot be read, or is not one JSON object.
            ConfigError: a key or a setting is unknown, missing or out of range.
            PromptFormatError: a message is not one.
        """
        raw = read_json_object(path)
        if set(raw) != {"messages", "settings"} or not isinstance(raw["settings"], dict):
            raise ConfigError(
                f"{path}: a conversation has the keys `messages` and `settings`, an object; got {sorted(raw)}"
            )
        messages = as_messages(raw["messages"])
        unknown = sorted(set(raw["settings"]) - set(SETTINGS))
        if unknown:
            raise ConfigError(f"{path}: unknown settings {unknown}; {nearest(unknown[0], SETTINGS)}")
        stop = raw["settings"].get("stop", [])
        if not isinstance(stop, str | list):
            raise ConfigError(f"{path}: `stop` must be a text or a list of texts, got {stop!r:.100}")
        stop = stop if isinstance(stop, str) else tuple(stop)
        settings = SamplingParams(**{**raw["settings"], "stop": stop})
        if messages and isinstance(messages[0], System):
            return cls(messages[0].text, messages[1:], settings)
        return cls(None, messages, settings)


def parse_setting(name: str, text: str) -> Any:
    """Turn what was typed into a value; `SamplingParams` says whether it is a good one.

    Args:
        name: one of `SETTINGS`.
        text: a number, ``none``, or for ``stop`` any text.
    """
    if text.lower() == "none":
        return () if name == "stop" else None
    if name == "stop":
        return text
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text


def _to_mapping(message: Message) -> dict[str, str]:
    raw = {"role": _ROLES[type(message)], "content": message.text}
    if isinstance(message, Tool) and message.name is not None:
        raw["name"] = message.name
    return raw


def _write_atomically(path: Path, text: str) -> None:
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except (OSError, UnicodeEncodeError) as error:
        raise StoreError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
