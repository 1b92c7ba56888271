"""What is said in a conversation, and by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna.errors import PromptFormatError, nearest

__all__ = ["Assistant", "Message", "System", "Tool", "User", "as_messages"]


@dataclass(frozen=True, slots=True)
class System:
    """Standing instructions to the model."""

    text: str


@dataclass(frozen=True, slots=True)
class User:
    """What the user says."""

    text: str


@dataclass(frozen=True, slots=True)
class Assistant:
    """What the model said.

    Attributes:
        text: its words.
        ends_turn: False where the model waits for a tool's result before it goes on.
    """

    text: str
    ends_turn: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """The result of a tool call; Llama calls this role ``ipython``.

    Attributes:
        text: the result.
        name: the tool that gave it, for templates that print it.
    """

    text: str
    name: str | None = None


Message = System | User | Assistant | Tool

_ROLES: dict[str, type[Message]] = {
    "assistant": Assistant,
    "ipython": Tool,
    "system": System,
    "tool": Tool,
    "user": User,
}


def as_messages(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """Accept messages in either spelling: as objects, or as the dicts that chat APIs use.

    Args:
        messages: `Message` objects, or mappings with ``role`` (system, user, assistant, tool or
            ipython), ``content`` (a string) and, for tools, maybe ``name``.

    Returns:
        The same messages as objects.

    Raises:
        PromptFormatError: a message is neither, has an unknown role or key, or no text.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise PromptFormatError(f"messages: must be a list of messages, got {type(messages).__name__}")
    return [
        m if isinstance(m, Message) else _from_mapping(f"messages[{i}]", m) for i, m in enumerate(messages)
    ]


def _from_mapping(where: str, raw: Any) -> Message:
    if not isinstance(raw, Mapping):
        raise PromptFormatError(
            f"{where}: must be a message or a mapping with `role` and `content`, got {type(raw).__name__}"
        )
    role = raw.get("role")
    kind = _ROLES.get(role) if isinstance(role, str) else None
    if kind is None:
        raise PromptFormatError(f"{where}: unknown role {role!r}; {nearest(str(role), _ROLES)}")
    fields = {"role", "content", "name"} if kind is Tool else {"role", "content"}
    unknown = sorted(str(key) for key in raw if key not in fields)
    if unknown:
        raise PromptFormatError(
            f"{where}: a {role} message has only the fields {sorted(fields)}, got also {unknown}"
        )
    if "content" not in raw:
        raise PromptFormatError(f"{where}: `content` is missing; it must be a string")
    values = {"text": raw["content"]}
    if raw.get("name") is not None:
        values["name"] = raw["name"]
    for value in values.values():
        if not isinstance(value, str):
            field = "content" if value is raw["content"] else "name"
            raise PromptFormatError(f"{where}: `{field}` must be a string, got {type(value).__name__}")
    return kind(**values)
