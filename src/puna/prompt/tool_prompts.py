"""The texts that tell a model which tools it has, as Meta's releases word them.

Models were trained on these very words, so they are kept letter by letter, oddities included: ``properties``
as a list, "any type is an object", "If none of the function can be used". What differs is how names,
descriptions and defaults get into the JSON: escaped, so that no description can break out of it.

Source: llama-stack, ``prompt_templates/system_prompts.py``; the vectors are in ``tests/golden``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

from puna.prompt.family import ToolForm
from puna.prompt.tools import CODE_INTERPRETER, ToolDefinition

__all__ = [
    "FUNCTIONS_HERE",
    "builtin_lines",
    "custom_tools_prompt",
    "date_lines",
    "english_date",
    "functions_list",
]

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip

FUNCTIONS_HERE = "{{ function_description }}"
"""Where a system message for ``python_list`` may say that the functions go."""

_JSON_PROMPT = """\
Answer the user's question by making use of the following functions if needed.
If none of the function can be used, please say so.
Here is a list of functions in JSON format:
{functions}

Return function calls in JSON format."""

_TAG_PROMPT = """\
You have access to the following functions:

{functions}

Think very carefully before calling functions.
If you choose to call a function ONLY reply in the following format with no prefix or suffix:

<function=example_function_name>{{"example_name": "example_value"}}</function>

Reminder:
- If looking for real time information use relevant functions before falling back to brave_search
- Function calls MUST follow the specified format, start with <function= and end with </function>
- Required parameters MUST be specified
- Only call one function at a time
- Put the entire function call reply on one line"""

_PYTHON_PROMPT = """\
You are a helpful assistant. You have access to functions, but you should only use them if they are required.
You are an expert in composing functions. You are given a question and a set of possible functions.
Based on the question, you may or may not need to make one function/tool call to achieve the purpose.

If you decide to invoke any of the function(s), you MUST put it in the format of \
[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]
If you decide to invoke a function, you SHOULD NOT include any other text in the response. \
besides the function call in the above format.
For a boolean parameter, be sure to use `True` or `False` (capitalized) for the value.


"""

_PYTHON_LIST = """\
Here is a list of functions in JSON format that you can invoke.

[
    {functions}
]

You can answer general questions or invoke tools when necessary.
In addition to tool calls, you should also augment your responses by using the tool outputs."""


def english_date(day: date) -> str:
    """A date as Llama's prompts have it, ``24 September 2024``, whatever the machine's language is."""
    return f"{day.day:02d} {_MONTHS[day.month - 1]} {day.year}"


def date_lines(today: date) -> str:
    """The two lines that tell the dates."""
    return f"Cutting Knowledge Date: December 2023\nToday Date: {english_date(today)}"


def builtin_lines(tools: Sequence[ToolDefinition]) -> str:
    """The lines that switch on tool use, and name the built-in tools other than the code interpreter."""
    names = [tool.name for tool in tools if tool.is_builtin and tool.name != CODE_INTERPRETER.name]
    return "Environment: ipython\n" + (f"Tools: {', '.join(names)}" if names else "")


def custom_tools_prompt(tools: Sequence[ToolDefinition], form: ToolForm) -> str:
    """The text about custom tools.

    Args:
        tools: at least one.
        form: how calls are to be spelled. The text for ``python_list`` belongs into the system message, the
            others are a user message of their own.
    """
    if form == "json":
        return _JSON_PROMPT.format(functions="\n".join(map(_json_function, tools)))
    if form == "function_tag":
        return _TAG_PROMPT.format(functions="\n\n".join(map(_tag_function, tools)))
    return _PYTHON_PROMPT + functions_list(tools)


def functions_list(tools: Sequence[ToolDefinition]) -> str:
    """The end of the text for ``python_list``: the functions, without what a model is told about itself."""
    return _PYTHON_LIST.format(functions=",\n    ".join(map(_python_function, tools)))


def _json_function(tool: ToolDefinition) -> str:
    properties = [
        {name: {"type": "object", "description": schema.get("description", "")}}
        for name, schema in _schemas(tool)
    ]
    inner = _indented(json.dumps(properties, indent=4, ensure_ascii=False), 12)
    return (
        "{\n"
        '    "type": "function",\n'
        '    "function": {\n'
        f'        "name": {_quoted(tool.name)},\n'
        f'        "description": {_quoted(tool.description)},\n'
        '        "parameters": {\n'
        '            "type": "object",\n'
        f'            "properties": {inner},\n'
        f'            "required": {_quoted(tool.required)}\n'
        "        }\n"
        "    }\n"
        "}"
    )


def _tag_function(tool: ToolDefinition) -> str:
    parameters = {
        name: {
            "description": schema.get("description", ""),
            "param_type": schema.get("type", "object"),
            "required": name in tool.required,
        }
        for name, schema in _schemas(tool)
    }
    return (
        f"Use the function '{tool.name}' to '{tool.description}':\n"
        f'{{"name": {_quoted(tool.name)}, "description": {_quoted(tool.description)}, '
        f'"parameters": {json.dumps(parameters, sort_keys=True)}}}'
    )


def _python_function(tool: ToolDefinition) -> str:
    properties = {
        name: {"type": schema.get("type", "object"), "description": schema.get("description", "")}
        | ({"default": schema["default"]} if schema.get("default") is not None else {})
        for name, schema in _schemas(tool)
    }
    inner = _indented(json.dumps(properties, indent=4, ensure_ascii=False), 12)
    return (
        "{\n"
        f'        "name": {_quoted(tool.name)},\n'
        f'        "description": {_quoted(tool.description)},\n'
        '        "parameters": {\n'
        '            "type": "dict",\n'
        f'            "required": {_quoted(tool.required)},\n'
        f'            "properties": {inner}\n'
        "        }\n"
        "    }"
    )


def _schemas(tool: ToolDefinition) -> list[tuple[str, dict[str, Any]]]:
    # A schema may also be just true or false.
    return [(name, schema if isinstance(schema, dict) else {}) for name, schema in tool.properties.items()]


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _indented(text: str, spaces: int) -> str:
    return text.replace("\n", "\n" + " " * spaces)
