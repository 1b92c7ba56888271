"""Training data as people write it: text files and JSONL, line by line into records.

A line of JSONL is one of::

    {"text": "..."}                                          a text
    {"messages": [{"role": "user", "content": "..."}, ...]}  a conversation, to learn the assistant's part
    {"prompt": "..." or [messages], "chosen": "...", "rejected": "..."}    two answers, the better one first

``chosen`` and ``rejected`` may also be a message of the assistant or a list of it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.errors import ConfigError, PromptFormatError
from puna.prompt.messages import Assistant, Message, User, as_messages
from puna.prompt.records import LINES, OBJECTS, read_objects, read_utf8
from puna.quantize.tables import TABLES

__all__ = ["Conversation", "Preference", "Record", "Text", "read_records"]

_SUFFIXES = (".txt", ".md", *LINES)


@dataclass(frozen=True, slots=True)
class Text:
    """A plain text.

    Attributes:
        where: file, and line in a JSONL file.
        text: all of it.
    """

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, of which the assistant's are learned.

    Attributes:
        where: file and line.
        messages: at least one of the assistant's.
    """

    where: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same conversation.

    Attributes:
        where: file and line.
        messages: what comes before both.
        chosen: the better answer.
        rejected: the other.
    """

    where: str
    messages: tuple[Message, ...]
    chosen: Assistant
    rejected: Assistant


Record = Text | Conversation | Preference


def read_records(path: Path) -> Iterator[Record]:
    """The records at a path, in a fixed order.

    Args:
        path: a ``.jsonl`` or ``.ndjson`` file, a ``.json`` file with a list, a text file, or a folder of
            these, which are read by name, without ``.json``: in a folder that is as often a config.

    Raises:
        ConfigError: there is nothing there, it is not UTF-8, a table, or a line is no record; the message
            names file and line.
    """
    files = [path]
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file()
        )
    if not files or not path.exists():
        raise ConfigError(f"{path} has no data; give a .jsonl file, a text file or a folder of them")
    for file in files:
        if file.suffix.lower() in TABLES:
            raise ConfigError(
                f"{file} is a table, which is not read as training data; write a .jsonl file of its rows"
            )
        if file.suffix.lower() in OBJECTS:
            yield from (_record(where, raw) for where, raw in read_objects(file))
        else:
            yield Text(str(file), read_utf8(file))


def _record(where: str, raw: Any) -> Record:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: must be a JSON object, got {type(raw).__name__}")
    if "chosen" in raw or "rejected" in raw:
        return _preference(where, raw)
    if "messages" in raw:
        messages = _messages(where, "messages", raw["messages"])
        if not any(isinstance(message, Assistant) for message in messages):
            raise ConfigError(f"{where}: has no message of the assistant, so there is nothing to learn")
        return Conversation(where, messages)
    if "text" not in raw:
        found = ", ".join(f"`{key}`" for key in raw) or "nothing"
        raise ConfigError(
            f"{where}: needs `text`, `messages`, or `prompt` with `chosen` and `rejected`, got {found:.200}"
        )
    return Text(where, _text(where, "text", raw["text"]))


def _preference(where: str, raw: Mapping[str, Any]) -> Preference:
    before = raw.get("messages", raw.get("prompt"))
    if before is None or "chosen" not in raw or "rejected" not in raw:
        raise ConfigError(f"{where}: two answers need `prompt` or `messages`, and `chosen` and `rejected`")
    messages = (User(before),) if isinstance(before, str) else _messages(where, "prompt", before)
    chosen, rejected = (_answer(where, key, raw[key]) for key in ("chosen", "rejected"))
    return Preference(where, messages, chosen, rejected)


def _answer(where: str, key: str, raw: Any) -> Assistant:
    if isinstance(raw, Mapping):
        raw = [raw]
    if not isinstance(raw, list):
        return Assistant(_text(where, key, raw))
    messages = _messages(where, key, raw)
    if len(messages) != 1 or not isinstance(messages[0], Assistant):
        raise ConfigError(
            f"{where}: `{key}` must be a text or one message of the assistant's; what was said before "
            "goes into `prompt`"
        )
    return messages[0]


def _messages(where: str, key: str, raw: Sequence[Any]) -> tuple[Message, ...]:
    try:
        return tuple(as_messages(raw))
    except PromptFormatError as error:
        raise ConfigError(f"{where}: `{key}`: {error}") from error


def _text(where: str, key: str, raw: Any) -> str:
    if not isinstance(raw, str):
        raise ConfigError(f"{where}: `{key}` must be a string, got {type(raw).__name__}")
    return raw
