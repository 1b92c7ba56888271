"""Answers that call tools as grammars, so that a model can be held to a call where a caller insists on one.

The calls are spelled as the model was taught, and in a way that `ToolCallStream` reads for any arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from puna.constraints.forms import JsonSchema, Lark
from puna.constraints.grammar import json_rule, why_nothing_suits
from puna.errors import ConstraintError
from puna.prompt.call_text import PYTHON_TAG
from puna.prompt.family import ToolForm
from puna.prompt.tools import ToolDefinition

__all__ = ["free_answer", "must_call"]

_MOST_CALLS = 16
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WHOLE_OBJECT = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties")
# What a schema may have beside its properties to be written as `name=value`.
_KEYWORDS = {"type", "properties", "required", "additionalProperties", "title", "description", "$schema"}
_ANY_TEXT = r"/(?s:.*)/"


def must_call(
    tools: Sequence[ToolDefinition],
    form: ToolForm,
    *,
    strict: Iterable[str] = (),
    several: bool,
    has_tag: bool,
    instead: JsonSchema | None = None,
) -> Lark:
    """The language of answers that are calls and nothing else.

    Args:
        tools: those that may be called, at least one.
        form: how the model was taught to spell calls of custom tools.
        strict: names of tools whose schemas hold to the letter. Of the others what cannot be enforced is left
            to the check of the finished call.
        several: whether there may be more than one call, up to 16.
        has_tag: whether the vocabulary has the token ``<|python_tag|>``.
        instead: JSON that the answer may be in place of calls.

    Raises:
        ConstraintError: the parameters of a tool are not JSON, or nothing suits them.
    """
    exact = set(strict)
    custom = [tool for tool in tools if not tool.is_builtin]
    for tool in custom:
        if reason := why_nothing_suits({"type": "object", **tool.parameters}):
            raise ConstraintError(
                f"tool {tool.name!r} cannot be called, since nothing suits its `parameters`: {reason:.200}; "
                "change them or leave it out"
            )
    builtin = [tool for tool in tools if tool.is_builtin]
    form = _usable(custom, form)
    rules: list[str] = []
    calls = [f"call_{i}" for i in range(len(custom))]
    for name, tool in zip(calls, custom, strict=True):
        rules += _call_rules(name, tool, form, tool.name in exact)
    tag = f"{PYTHON_TAG} " if has_tag else ""
    alone = []
    for i, tool in enumerate(builtin):
        (argument,) = tool.required
        opening = json.dumps(f"{tool.name}.call({argument}=")
        rules.append(f'builtin_{i}: {tag}{opening} {json_rule({"type": "string"})} ")"')
        alone.append(f"builtin_{i}")
    if custom and form == "python_list":
        rules.append(f"listed: {' | '.join(calls)}")
        rules.append(
            'list: "[" listed' + (f' (", " listed){{0,{_MOST_CALLS - 1}}}' if several else "") + ' "]"'
        )
        calls = ["list"]
    rules.append(f"one: {' | '.join([*calls, *alone])}")
    start = "one" + (_more(form, bool(alone), has_tag) if several else "")
    if instead is not None:
        rules.append(f"instead: {json_rule(instead.values)}")
        start += " | instead"
    return Lark("\n".join([f"start: {start}", *rules]))


def free_answer(tools: Sequence[ToolDefinition], form: ToolForm) -> Lark:
    """The language of any answer in which the arguments of some tools' calls suit their schemas.

    Args:
        tools: those tools, none of them built in.
        form: how the model was taught to spell calls.

    Raises:
        ConstraintError: the parameters of a tool are not JSON.
    """
    form = _usable(tools, form)
    rules = []
    for i, tool in enumerate(tools):
        # Lazy: from the first place on where the call's arguments are due.
        rules.append(f"begun_{i}[lazy]: /(?s:.*)({_beginning(tool.name, form)})/")
        rules += _arguments(f"arguments_{i}", tool, form, is_exact=True)
    started = " | ".join(f"begun_{i} / ?/ arguments_{i}" for i in range(len(tools)))
    return Lark("\n".join([f"start: ({started})* rest", f"rest: {_ANY_TEXT}", *rules]))


def _more(form: ToolForm, has_builtin: bool, has_tag: bool) -> str:
    """How further calls follow the first one, so that they are read."""
    if form == "python_list" and not has_builtin:
        return ""  # they stand in the list
    if form == "function_tag":
        return f" one{{0,{_MOST_CALLS - 1}}}" if has_tag or not has_builtin else ""
    return f' ("; " one){{0,{_MOST_CALLS - 1}}}'


def _usable(tools: Iterable[ToolDefinition], form: ToolForm) -> ToolForm:
    """The form, or the one in JSON where a tool's arguments have no names to be written as keywords."""
    if form == "python_list" and not all(_has_keywords(tool) for tool in tools):
        return "json"
    return form


def _has_keywords(tool: ToolDefinition) -> bool:
    names = [*tool.properties, tool.name.replace(".", "_")]
    return (
        set(tool.parameters) <= _KEYWORDS
        and set(tool.parameters.get("required", ())) <= set(tool.properties)
        and all(_NAME.fullmatch(name) for name in names)
        and all(schema is True or isinstance(schema, Mapping) for schema in tool.properties.values())
        and not any("$ref" in part for part in _objects(tool.parameters))
    )


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _objects(item)


def _call_rules(name: str, tool: ToolDefinition, form: ToolForm, is_exact: bool) -> list[str]:
    if form == "json":
        return [f"{name}: {json_rule(_call_schema(tool), is_exact=is_exact)}"]
    arguments = f"{name}_arguments"
    if form == "function_tag":
        opening, closing = f"<function={tool.name}>", "</function>"
    else:
        opening, closing = f"{tool.name}(", ")"
    rule = f"{name}: {json.dumps(opening)} {arguments} {json.dumps(closing)}"
    return [rule, *_arguments(arguments, tool, form, is_exact=is_exact)]


def _call_schema(tool: ToolDefinition) -> dict[str, Any]:
    """A whole call as JSON. As text around the arguments it could not be told from other JSON in time."""
    parameters = _moved(_closed(tool.parameters), "#/properties/parameters")
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _moved(value: Any, place: str) -> Any:
    """A schema that becomes a part of another one at `place`, with its references to itself."""
    if isinstance(value, Mapping):
        moved = {key: _moved(item, place) for key, item in value.items()}
        target = value.get("$ref")
        if isinstance(target, str) and (target == "#" or target.startswith("#/")):
            moved["$ref"] = place + target[1:]
        return moved
    return [_moved(item, place) for item in value] if isinstance(value, list | tuple) else value


def _beginning(name: str, form: ToolForm) -> str:
    """A pattern of what stands before the arguments of a call; models vary the spaces and the keys."""
    quoted = re.escape(name).replace("/", r"\/")
    if form == "json":
        return rf'"name"\s*:\s*"{quoted}"\s*,\s*"(parameters|arguments)"\s*:'
    if form == "function_tag":
        return rf"<function={quoted}>"
    return rf"(\[|[)],\s?){quoted}\("


def _arguments(rule: str, tool: ToolDefinition, form: ToolForm, *, is_exact: bool) -> list[str]:
    if form != "python_list":
        return [f"{rule}: {json_rule(_closed(tool.parameters), is_exact=is_exact)}"]
    needed = set(tool.required)
    names = list(tool.properties)
    rules, rest = [], []
    for i, name in enumerate(names):
        schema = tool.properties[name]
        value = json_rule({} if schema is True else schema, is_exact=is_exact)
        rules.append(f"{rule}_{i}: {json.dumps(name + '=')} {value}")
        rest.append(f'", " {rule}_{i}' if name in needed else f'(", " {rule}_{i})?')
    # An argument that is not needed may be left out, the first one included.
    ways = []
    for i, name in enumerate(names):
        ways.append(" ".join([f"{rule}_{i}", *rest[i + 1 :]]))
        if name in needed:
            break
    else:
        ways.append('""')
    return [*rules, f"{rule}: {' | '.join(ways)}"]


def _closed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's parameters without arguments that it does not name, which it would hardly expect."""
    schema = {"type": "object", **parameters}
    if not any(keyword in parameters for keyword in _WHOLE_OBJECT):
        schema["additionalProperties"] = False
    return schema
