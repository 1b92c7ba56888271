"""What is said in a conversation, and by whom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from puna.errors import PromptFormatError, nearest

__all__ = [
    "Assistant",
    "Content",
    "Image",
    "Message",
    "System",
    "Tool",
    "ToolCall",
    "User",
    "as_messages",
    "parts_of",
]


@dataclass(frozen=True, slots=True)
class Image:
    """The place of a picture in a message; the text that is to see it comes behind it.

    Attributes:
        source: the picture, as whoever loads it takes it: the bytes of a file, or a path or URL. Nothing in
            this package looks at it.
    """

    source: bytes | str | None = None


Content = str | Sequence[str | Image]
"""A text, or parts in their order. Parts are encoded one by one: ``("a", "b")`` may give other ids than
``"ab"``."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for.

    Attributes:
        name: the tool.
        arguments: a JSON object.
        id: what the result refers to; None where nobody has given one.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    content: Content

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part for part in parts_of(self.content) if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class System(_Said):
    """Standing instructions to the model.

    Attributes:
        content: the instructions.
    """


@dataclass(frozen=True, slots=True)
class User(_Said):
    """What the user says.

    Attributes:
        content: the words and pictures.
        context: text that was looked up for this message; it goes behind it.
    """

    context: Content | None = None


@dataclass(frozen=True, slots=True)
class Assistant(_Said):
    """What the model said.

    Attributes:
        content: its words.
        ends_turn: False where the model waits for a tool's result before it goes on.
        tool_calls: what it asks for, behind its words.
    """

    ends_turn: bool = True
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool(_Said):
    """The result of a tool call; Llama calls this role ``ipython``.

    Attributes:
        content: the result.
        name: the tool that gave it, for templates that print it.
        call_id: the call that it answers.
        value: the result as an object, for templates that print results as JSON; None where it is a text.
    """

    name: str | None = None
    call_id: str | None = None
    value: Mapping[str, Any] | None = None


Message = System | User | Assistant | Tool

_ROLES: dict[str, type[Message]] = {
    "assistant": Assistant,
    "ipython": Tool,
    "system": System,
    "tool": Tool,
    "user": User,
}
_FIELDS: dict[type[Message], set[str]] = {
    Assistant: {"role", "content", "tool_calls", "ends_turn"},
    System: {"role", "content"},
    Tool: {"role", "content", "name", "tool_call_id"},
    User: {"role", "content", "context"},
}
# Where an image part may say what it shows: OpenAI's way first, then transformers' and Meta's.
_IMAGE_KEYS = ("image_url", "image", "url", "path", "data")


def parts_of(content: Content) -> Sequence[str | Image]:
    """A content's parts; a text is a single one."""
    return [content] if isinstance(content, str) else content


def as_messages(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """Accept messages in either spelling: as objects, or as the dicts that chat APIs use.

    Args:
        messages: `Message` objects, or mappings as OpenAI's API has them: ``role`` (system, user,
            assistant, tool or ipython) and ``content`` (a text, or parts ``{"type": "text", "text": ...}``
            and ``{"type": "image_url", ...}`` or ``{"type": "image", ...}``). The assistant's may have
            ``tool_calls`` (arguments as an object or as JSON in a text) and ``ends_turn``, the user's a
            ``context``, a tool's a ``name``, a ``tool_call_id`` and an object as ``content``. Fields that
            are None count as left out.

    Returns:
        The same messages as objects. Parts stay in their order, so a picture that comes behind a text is
        not seen by that text.

    Raises:
        PromptFormatError: a message is neither, has an unknown role or key, or a value of another kind.
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
    given = {key: value for key, value in raw.items() if value is not None}
    fields = _FIELDS[kind]
    unknown = sorted(str(key) for key in given if key not in fields)
    if unknown:
        raise PromptFormatError(
            f"{where}: a message of the role {role} has only the fields {sorted(fields)}, got also {unknown}"
        )
    if kind is Tool:
        return _tool(where, given)
    calls = _tool_calls(f"{where}.tool_calls", given.get("tool_calls", []))
    content = _content(f"{where}: `content`", given.get("content", "" if calls else None))
    if kind is Assistant:
        ends_turn = given.get("ends_turn", True)
        if not isinstance(ends_turn, bool):
            _refuse(f"{where}: `ends_turn`", "true or false", ends_turn)
        return Assistant(content, ends_turn, calls)
    if kind is User and "context" in given:
        return User(content, _content(f"{where}: `context`", given["context"]))
    return kind(content)


def _tool(where: str, given: Mapping[str, Any]) -> Tool:
    raw = given.get("content")
    value = raw if isinstance(raw, Mapping) else None
    text = json.dumps(value, ensure_ascii=False) if value is not None else raw
    name, call_id = (_optional_text(where, given, key) for key in ("name", "tool_call_id"))
    return Tool(_content(f"{where}: `content`", text), name, call_id, value)


def _content(where: str, raw: Any) -> Content:
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list | tuple):
        _refuse(where, "a string or a list of parts", raw)
    return tuple(_part(f"{where}[{i}]", part) for i, part in enumerate(raw))


def _part(where: str, raw: Any) -> str | Image:
    if isinstance(raw, str | Image):
        return raw
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    if kind == "text":
        if not isinstance(raw.get("text"), str):
            _refuse(f"{where}: `text`", "a string", raw.get("text"))
        return str(raw["text"])
    if kind not in ("image", "image_url"):
        raise PromptFormatError(
            f"{where}: a part must be a mapping whose `type` is 'text', 'image' or 'image_url', "
            f"got {raw!r:.80}"
        )
    source = next((raw[key] for key in _IMAGE_KEYS if raw.get(key) is not None), None)
    if isinstance(source, Mapping):
        source = source.get("url")
    if source is not None and not isinstance(source, str | bytes):
        _refuse(f"{where}: the picture", "a string or bytes", source)
    return Image(source)


def _tool_calls(where: str, raw: Any) -> tuple[ToolCall, ...]:
    if not isinstance(raw, list | tuple):
        _refuse(where, "a list of calls", raw)
    return tuple(_tool_call(f"{where}[{i}]", call) for i, call in enumerate(raw))


def _tool_call(where: str, raw: Any) -> ToolCall:
    if isinstance(raw, ToolCall):
        return raw
    function = raw.get("function", raw) if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PromptFormatError(
            f"{where}: a call must be a mapping with a `function` that has a `name` and `arguments`, "
            f"got {raw!r:.80}"
        )
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise PromptFormatError(f"{where}: `arguments` is not JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        _refuse(f"{where}: `arguments`", "a JSON object", arguments)
    return ToolCall(function["name"], arguments, _optional_text(where, raw, "id"))


def _optional_text(where: str, raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        _refuse(f"{where}: `{key}`", "a string", value)
    return value


def _refuse(where: str, needed: str, value: Any) -> NoReturn:
    raise PromptFormatError(f"{where} must be {needed}, got {type(value).__name__}")
