"""Calls as the text that a model would have written, for the turns of a conversation that lie behind.

A call that is spelled here is read back by `tool_calls.py` with the same arguments, whatever they are. Meta's
reference does not escape quotes and separates nothing, so that some calls of its spelling cannot be read
back; the style ``reference`` writes them so all the same, for comparison with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from puna.errors import PromptFormatError
from puna.prompt.family import ToolForm
from puna.prompt.format import Piece, Special
from puna.prompt.messages import ToolCall
from puna.prompt.tools import BUILTIN_TOOLS, CODE_INTERPRETER

__all__ = ["MAX_DEPTH", "PYTHON_TAG", "CallStyle", "assistant_pieces", "check_depth", "spell_json"]

PYTHON_TAG = "<|python_tag|>"

MAX_DEPTH = 64
"""How deep arguments may be nested."""

# A program that begins like a call, or like a list or an object that might hold one.
_LIKE_A_CALL = re.compile(r"\s*(?:[\[{<]|[\w.-]+\.call\s*\()")
_PYTHON_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallStyle:
    """How calls are spelled.

    Attributes:
        form: of custom tools.
        is_reference: exactly as Meta's reference, even where that cannot be read back.
        tags_builtin: put ``<|python_tag|>`` before searches, as Meta's documents show and its reference does
            not: it taught models to write the tag before custom calls too.
    """

    form: ToolForm = "json"
    is_reference: bool = False
    tags_builtin: bool = False

    def with_form(self, form: ToolForm | None) -> CallStyle:
        """The same with another form, where one is given."""
        return self if form is None else replace(self, form=form)


def assistant_pieces(content: list[Piece], calls: Sequence[ToolCall], style: CallStyle) -> list[Piece]:
    """What an assistant said, and the calls behind it.

    Args:
        content: pieces of its words.
        calls: what it called.
        style: how to spell that.

    Raises:
        PromptFormatError: arguments are not JSON, or nested too deep.
    """
    if style.is_reference:
        tag = [Special(PYTHON_TAG)] if calls and calls[0].name == CODE_INTERPRETER.name else []
        return [*tag, *content, *(_reference_text(call, style.form) for call in calls)]
    pieces = list(content)
    is_in_code = False
    words = next((piece for piece in reversed(content) if piece), "\n")
    # These two forms are calls only at the start of a line, or right behind another one.
    may_follow = isinstance(words, Special) or words.endswith("\n")
    for call in calls:
        text = _spell(call, style)
        if text is None:
            pieces += [Special(PYTHON_TAG), str(_only(call, CODE_INTERPRETER.name))]
            is_in_code = True
            continue
        # Code goes on up to the next tag.
        if is_in_code or (style.tags_builtin and _is_query(call)):
            pieces.append(Special(PYTHON_TAG))
        elif text[0] not in "{<" and not may_follow:
            text = "\n" + text
        pieces.append(text)
        is_in_code, may_follow = False, text[0] != "<"
    return pieces


def spell_json(call: ToolCall) -> str:
    """A call's text in the form ``json``.

    Raises:
        PromptFormatError: its arguments are not JSON, or nested too deep.
    """
    return _json(call, {"type": "function", "name": call.name, "parameters": call.arguments})


def _spell(call: ToolCall, style: CallStyle) -> str | None:
    """A call's text; None for a program, which is spelled by itself behind a tag."""
    if call.name == CODE_INTERPRETER.name and isinstance(code := _only(call, call.name), str):
        if not _LIKE_A_CALL.match(code) and _is_plain(code):
            return None
        return f"{call.name}.call(code={_string(code)})"
    if _is_query(call):
        return f"{call.name}.call(query={_string(str(call.arguments['query']))})"
    if style.form == "python_list":
        check_depth(call, call.arguments)
        return f"[{call.name}({_keywords(call.arguments)})]"
    if style.form == "function_tag":
        return f"<function={call.name}>{_json(call, call.arguments)}</function>"
    return spell_json(call)


def _only(call: ToolCall, name: str) -> Any:
    """The single argument of a built-in tool, None where the arguments are others."""
    (argument,) = BUILTIN_TOOLS[name].required
    return call.arguments[argument] if set(call.arguments) == {argument} else None


def _is_query(call: ToolCall) -> bool:
    is_search = call.name in BUILTIN_TOOLS and call.name != CODE_INTERPRETER.name
    return is_search and isinstance(_only(call, call.name), str)


def _is_plain(code: str) -> bool:
    """Whether a program survives being encoded and decoded as it is."""
    return not any("\ud800" <= character <= "\udfff" for character in code)


def _json(call: ToolCall, value: Mapping[str, Any]) -> str:
    check_depth(call, call.arguments)
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PromptFormatError(
            f"the arguments of the call of {call.name!r} are not JSON: {error}"
        ) from error


def check_depth(call: ToolCall, value: Any, depth: int = 0) -> None:
    """Refuse arguments, or a value in them, nested deeper than `MAX_DEPTH`.

    Args:
        call: whose they are.
        value: what is looked at.
        depth: how deep it stands itself.

    Raises:
        PromptFormatError: they are.
    """
    if isinstance(value, Mapping | list | tuple):
        if depth >= MAX_DEPTH:
            raise PromptFormatError(
                f"the arguments of the call of {call.name!r} may be nested {MAX_DEPTH} deep, they are deeper"
            )
        for item in value.values() if isinstance(value, Mapping) else value:
            check_depth(call, item, depth + 1)


def _keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={_python(value)}" if _PYTHON_NAME.fullmatch(key) else f"**{_python({key: value})}"
        for key, value in arguments.items()
    )


def _python(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_python, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_string(k)}: {_python(v)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise PromptFormatError(f"an argument of a call is {value!r}, which JSON has no word for")
        try:
            return repr(value)
        except ValueError as error:
            raise PromptFormatError(f"an argument of a call is not JSON: {error}") from error
    raise PromptFormatError(f"an argument of a call is a {type(value).__name__}, which JSON has no word for")


def _string(text: str) -> str:
    # JSON's escapes mean the same in Python. Halves of surrogate pairs are escaped: no vocabulary has them.
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if _is_plain(text) else re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", quoted)


def _reference_text(call: ToolCall, form: ToolForm) -> str:
    if call.name == CODE_INTERPRETER.name:
        return str(call.arguments.get("code", ""))
    if call.name in BUILTIN_TOOLS:
        return f'{call.name}.call(query="{call.arguments.get("query", "")}")'
    if form == "python_list":
        keywords = ", ".join(f"{k}={_reference_value(v)}" for k, v in call.arguments.items())
        return f"[{call.name}({keywords})]"
    return _spell(call, CallStyle(form=form)) or ""


def _reference_value(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_reference_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}={_reference_value(v)}" for k, v in value.items()) + "}"
    return str(value)
