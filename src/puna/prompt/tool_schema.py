"""Arguments of calls against the JSON schemas of the tools."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from puna.errors import PromptFormatError
from puna.prompt.tools import ToolDefinition

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["ToolSet"]

_MAX_REASON = 300


class ToolSet:
    """The tools that calls may name."""

    def __init__(self, tools: Iterable[ToolDefinition]) -> None:
        """Register tools.

        Args:
            tools: definitions, no two of the same name.

        Raises:
            PromptFormatError: the parameters of one are no JSON schema.
        """
        self._tools = {tool.name: tool for tool in tools}
        self._validators: dict[str, Validator] = {}
        for tool in self._tools.values():
            if not tool.is_builtin:
                self._validators[tool.name] = _validator(tool)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __bool__(self) -> bool:
        return bool(self._tools)

    def is_builtin(self, name: str) -> bool:
        """Whether a registered tool is one that Llama knows by name."""
        return self._tools[name].is_builtin

    def settle(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Put the lone text that a built-in tool was given under the name that the tool has for it.

        Models call these tools with ``{"query": ...}`` and as often with a name of their own.
        """
        tool = self._tools[name]
        if tool.is_builtin and len(arguments) == 1:
            (value,) = arguments.values()
            if isinstance(value, str):
                return {tool.required[0]: value}
        return arguments

    def problem(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with the arguments of a registered tool, None where they are as its schema says."""
        tool = self._tools[name]
        if tool.is_builtin:
            (needed,) = tool.required
            if set(arguments) == {needed} and isinstance(arguments[needed], str):
                return None
            return f"{name} takes one text, {needed!r}, got {sorted(arguments)}"
        from puna.prompt.schema_limits import first_error

        try:
            error = first_error(self._validators[name], arguments)
        except Exception as failure:  # a reference to nowhere, a pattern that is none, endless nesting
            return f"the schema of {name} cannot be applied: {failure}"[:_MAX_REASON]
        if error is None:
            return None
        where = "".join(f"[{step!r}]" for step in error.absolute_path)
        return f"arguments of {name}{where}: {error.message}"[:_MAX_REASON]


def _validator(tool: ToolDefinition) -> Validator:
    from jsonschema import SchemaError

    try:
        return _validator_of(json.dumps(tool.parameters))
    except SchemaError as error:
        reason = error.message
    except RecursionError:
        reason = "it is nested too deeply"
    except (TypeError, ValueError, PromptFormatError) as error:
        reason = str(error)
    raise PromptFormatError(f"tool {tool.name!r}: `parameters` is not a JSON schema: {reason:.200}")


@lru_cache(maxsize=256)
def _validator_of(schema: str) -> Validator:
    """The validator of a schema; checking one takes longer than reading most answers, so it is done once."""
    from jsonschema import Draft202012Validator

    from puna.prompt.schema_limits import bounded_validator, check_patterns

    parameters = json.loads(schema)
    Draft202012Validator.check_schema(parameters)
    check_patterns(parameters)
    return bounded_validator(parameters)
