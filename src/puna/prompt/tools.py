"""What a tool is to a model: a name, a description and the JSON schema of its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.errors import PromptFormatError

__all__ = ["BUILTIN_TOOLS", "CODE_INTERPRETER", "ToolDefinition", "as_tools"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def _no_parameters() -> dict[str, Any]:
    return {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that a model may call.

    Attributes:
        name: letters, digits, ``_``, ``.`` and ``-``, at most 128 of them.
        description: what it does, for the model.
        parameters: JSON schema of its arguments, an object's.
        is_strict: whether all of the schema must hold, so that one that cannot be applied is refused. Of
            other tools such a schema is shown to the model and not checked.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_no_parameters)
    is_strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PromptFormatError(
                "a tool's name must be 1 to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or "
                f"`-`, got {self.name!r:.140}"
            )
        if not isinstance(self.description, str):
            raise PromptFormatError(f"tool {self.name!r}: `description` must be a string")
        kind = self.parameters.get("type", "object") if isinstance(self.parameters, Mapping) else None
        if kind != "object" or not isinstance(self.properties, Mapping):
            raise PromptFormatError(
                f"tool {self.name!r}: `parameters` must be the JSON schema of an object, "
                f"got {self.parameters!r:.80}"
            )

    @property
    def properties(self) -> Mapping[str, Any]:
        """Schema of each argument."""
        found: Mapping[str, Any] = self.parameters.get("properties", {})
        return found

    @property
    def required(self) -> Sequence[str]:
        """Arguments that a call must have, in the order of the schema."""
        needed = self.parameters.get("required", ())
        return [name for name in self.properties if name in needed] if _are_texts(needed) else []

    @property
    def is_builtin(self) -> bool:
        """Whether Llama was taught this very tool, so that its name is all that a prompt needs."""
        return self.name in BUILTIN_TOOLS


def _builtin(name: str, description: str, argument: str, meaning: str) -> ToolDefinition:
    properties = {argument: {"type": "string", "description": meaning}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": [argument],
        "additionalProperties": False,
    }
    return ToolDefinition(name, description, schema)


CODE_INTERPRETER = _builtin("code_interpreter", "Runs Python code", "code", "the program")

BUILTIN_TOOLS: Mapping[str, ToolDefinition] = {
    tool.name: tool
    for tool in (
        _builtin("brave_search", "Searches the web", "query", "what to search for"),
        _builtin("wolfram_alpha", "Computes and looks up facts", "query", "the question"),
        _builtin("photogen", "Draws a picture", "query", "what to draw"),
        CODE_INTERPRETER,
    )
}
"""The tools that Llama 3.1 and later know by name. Models are not taught when to use ``photogen``."""


def as_tools(tools: Iterable[ToolDefinition | Mapping[str, Any]]) -> list[ToolDefinition]:
    """Accept tools as objects or as the dicts of OpenAI's API.

    Args:
        tools: definitions, or mappings ``{"type": "function", "function": {"name": ..., "description": ...,
            "parameters": ..., "strict": ...}}``, or just what stands in ``function``.

    Returns:
        The same tools as objects; the name alone of a built-in tool is enough.

    Raises:
        PromptFormatError: one is neither, or two have the same name.
    """
    found = [
        t if isinstance(t, ToolDefinition) else _from_mapping(f"tools[{i}]", t) for i, t in enumerate(tools)
    ]
    names = [tool.name for tool in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PromptFormatError(f"tools: every tool needs a name of its own, these are there twice: {twice}")
    return found


def _from_mapping(where: str, raw: Any) -> ToolDefinition:
    function = raw.get("function", raw) if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PromptFormatError(
            f"{where}: must be a tool or a mapping with a `function` that has a `name`, got {raw!r:.80}"
        )
    name = function["name"]
    if name in BUILTIN_TOOLS and not function.get("parameters"):
        return BUILTIN_TOOLS[name]
    parameters = function.get("parameters") or _no_parameters()
    is_strict = function.get("strict") is True
    if isinstance(parameters, Mapping):
        parameters = {k: value for k, value in parameters.items() if not _is_absent(k, value, is_strict)}
    return ToolDefinition(name, function.get("description") or "", parameters, is_strict)


def _is_absent(key: str, value: Any, is_strict: bool) -> bool:
    """Whether a keyword of a tool's parameters says nothing, though it is there."""
    if value is None:  # as languages write lists and maps that were never made
        return key in ("properties", "required")
    # As drafts before 4 have it, `true`: it names no argument, and all who read a tool expect names.
    return key == "required" and not is_strict and not _are_texts(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
