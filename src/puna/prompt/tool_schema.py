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
            PromptFormatError: the parameters of one are not JSON or nested too deeply, or those of a strict
                one are no schema that can be applied.
        """
        self._tools = {tool.name: tool for tool in tools}
        self._validators: dict[str, Validator | None] = {}
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
        """What is wrong with the arguments of a registered tool, None where they are as its schema says.

        Where the schema of a tool that is not strict cannot be applied, any arguments will do.
        """
        tool = self._tools[name]
        if tool.is_builtin:
            (needed,) = tool.required
            if set(arguments) == {needed} and isinstance(arguments[needed], str):
                return None
            return f"{name} takes one text, {needed!r}, got {sorted(arguments)}"
        from puna.prompt.schema_limits import first_error

        validator = self._validators[name]
        if validator is None:
            return None
        try:
            error = first_error(validator, arguments)
        except Exception as failure:  # a reference to nowhere, endless nesting
            if not tool.is_strict:
                return None
            return f"the schema of {name} cannot be applied: {failure}"[:_MAX_REASON]
        if error is None:
            return None
        where = "".join(f"[{step!r}]" for step in error.absolute_path)
        return f"arguments of {name}{where}: {error.message}"[:_MAX_REASON]


def _validator(tool: ToolDefinition) -> Validator | None:
    """What checks the arguments; None where the schema cannot be applied and need not be.

    OpenAI takes such schemas too, and many come from generators that know another draft or other patterns.
    """
    try:
        found = _validator_of(json.dumps(tool.parameters))
    except RecursionError:
        found = "it is nested too deeply"
    except (TypeError, ValueError) as error:
        found = str(error)
    else:
        if not isinstance(found, str):
            return found
        if not tool.is_strict:
            return None
    raise PromptFormatError(f"tool {tool.name!r}: `parameters` is not a JSON schema: {found:.200}")


@lru_cache(maxsize=256)
def _validator_of(schema: str) -> Validator | str:
    """The validator of a schema, or what is wrong with it.

    Checking one takes longer than reading most answers, so it is done once.
    """
    from jsonschema import FormatChecker, SchemaError

    from puna.prompt.schema_limits import bounded_validator, check_patterns, draft_of

    parameters = json.loads(schema)
    try:
        # Its own look at patterns is left out: they are applied by another engine than Python's.
        draft_of(parameters).check_schema(parameters, format_checker=FormatChecker(()))  # type: ignore[call-arg]
        check_patterns(parameters)
        return bounded_validator(parameters)
    except SchemaError as error:
        return error.message
    except PromptFormatError as error:
        return str(error)
