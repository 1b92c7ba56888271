"""What a model is told before a conversation: which day it is, and which tools it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from puna.errors import PromptFormatError, nearest
from puna.prompt.family import Family, ToolForm
from puna.prompt.messages import Message, System, User
from puna.prompt.tool_prompts import (
    FUNCTIONS_HERE,
    builtin_lines,
    custom_tools_prompt,
    date_lines,
    functions_list,
)
from puna.prompt.tools import ToolDefinition

__all__ = ["Preamble", "with_preamble"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preamble:
    """Tools and the date, to be put into words as the model was taught.

    Attributes:
        tools: those that the model may call, built-in ones and custom ones.
        tool_choice: ``auto``; ``required`` (it must call some tool); ``none`` (it is not told of any); or the
            name of the tool that it must call.
        tool_form: how it is to spell calls of custom tools; None for the usual form of its family.
        date: which day it is told that it is; None for today. Families without a date are told none.
    """

    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: str = "auto"
    tool_form: ToolForm | None = None
    date: date | None = None

    @property
    def offered(self) -> tuple[ToolDefinition, ...]:
        """The tools that the model is told of."""
        return () if self.tool_choice == "none" else self.tools

    @property
    def demand(self) -> str:
        """The sentence that makes the model call a tool, empty where it is free to.

        Raises:
            PromptFormatError: the choice is neither a word for one nor the name of a tool.
        """
        if self.tool_choice in ("auto", "none"):
            return ""
        names = [tool.name for tool in self.tools]
        if self.tool_choice == "required" and names:
            return "You MUST use one of the provided functions/tools to answer the user query."
        if self.tool_choice not in names:
            known = ["auto", "none", *(["required"] if names else []), *names]
            raise PromptFormatError(
                f"`tool_choice` {self.tool_choice!r} is no tool; {nearest(self.tool_choice, known)}"
            )
        return f"You MUST use the tool `{self.tool_choice}` to answer the user query."


def with_preamble(messages: Sequence[Message], preamble: Preamble, family: Family) -> list[Message]:
    """Put tools and the date into the messages, as llama-stack does for each family.

    Args:
        messages: a conversation; a system message counts where it comes first.
        preamble: what to tell.
        family: what the model was taught.

    Returns:
        The conversation with a system message in front: dates, tools, then what the first system message
        said. Custom tools in the forms ``json`` and ``function_tag`` are a user message behind it, those in
        ``python_list`` stand in the system message; where that has `FUNCTIONS_HERE` in it, just there.

    Raises:
        PromptFormatError: the family has no tools or not this form, or the tool choice is unknown.
    """
    rest = list(messages)
    system = rest.pop(0).text if rest and isinstance(rest[0], System) else None
    custom = [tool for tool in preamble.offered if not tool.is_builtin]
    form = _form(preamble, family, bool(custom))
    if form == "python_list":
        return [System(_python_list_system(preamble, custom, system or "")), *rest]
    lines = [builtin_lines(preamble.offered)] if preamble.offered else []
    if family.tells_date:
        lines.append(date_lines(preamble.date or date.today()))
    lines += [] if system is None else [system]
    lines += [preamble.demand] if preamble.demand else []
    first: list[Message] = [System("\n".join(lines))] if lines else []
    if custom and form is not None:
        first.append(User(custom_tools_prompt(custom, form)))
    return [*first, *rest]


def _form(preamble: Preamble, family: Family, has_custom: bool) -> ToolForm | None:
    if not family.tool_forms:
        if preamble.offered:
            raise PromptFormatError(
                f"a model of the format {family.name} was taught no tools; use one from llama3.1 on"
            )
        return None
    form = preamble.tool_form or family.tool_forms[0]
    if has_custom and form not in family.tool_forms:
        raise PromptFormatError(
            f"a model of the format {family.name} does not spell calls as {form!r}; "
            f"{nearest(form, family.tool_forms)}"
        )
    return form if form in family.tool_forms else family.tool_forms[0]


def _python_list_system(preamble: Preamble, custom: list[ToolDefinition], system: str) -> str:
    text = ""
    if any(tool.is_builtin for tool in preamble.offered):
        text += builtin_lines(preamble.offered) + "\n"
    if custom and FUNCTIONS_HERE in system:
        text += system.replace(FUNCTIONS_HERE, functions_list(custom)) + "\n"
    else:
        text += custom_tools_prompt(custom, "python_list") + "\n" if custom else ""
        text += system
    if preamble.demand:
        text += "\n" + preamble.demand
    return text.strip("\n")
