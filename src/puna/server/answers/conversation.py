"""From the messages and tools of a chat request to a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from puna.constraints.forms import Constraint, JsonSchema
from puna.errors import ConstraintError, PromptFormatError
from puna.llama import Llama
from puna.prompt import Preamble, as_messages, as_tools
from puna.prompt.call_grammar import free_answer, must_call
from puna.prompt.call_text import PYTHON_TAG
from puna.prompt.tool_schema import ToolSet
from puna.prompt.tools import ToolDefinition
from puna.server.errors import ApiError, about
from puna.server.schemas.chat import (
    AllowedTools,
    AssistantMessage,
    ChatBody,
    EarlierCall,
    Message,
    NamedTool,
    RefusalPart,
    SystemMessage,
    TextPart,
    Tool,
    ToolMessage,
)
from puna.server.schemas.response_format import constraint_of
from puna.server.wire.strict import check_counts

__all__ = ["QUICK_CHARACTERS", "ChatPlan", "is_quick", "plan_chat"]

QUICK_CHARACTERS = 4096
"""Texts up to this length are encoded in well under a millisecond."""
_QUICK_MESSAGES = 32
_MAX_TOOLS_CHARACTERS = 262_144  # more would take seconds to look at, and no model could read it


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """What a chat request comes to for a model.

    Attributes:
        prompt: token ids.
        tools: those that an answer may call, None where it calls none.
        constraint: what the answer must be, None for anything; the engine has it ready.
        must_call: whether that is calls and nothing else.
    """

    prompt: Sequence[int]
    tools: ToolSet | None
    constraint: Constraint | None
    must_call: bool = False


def is_quick(body: ChatBody) -> bool:
    """Whether to plan a chat takes no time to speak of: it is short, and has no tools and no constraint."""
    if body.tools or body.response_format is not None or len(body.messages) > _QUICK_MESSAGES:
        return False
    return sum(map(_length, body.messages)) <= QUICK_CHARACTERS


def plan_chat(llama: Llama, body: ChatBody, owner: str) -> ChatPlan:
    """Encode a conversation; may take a while for a long one.

    Args:
        llama: the model.
        body: the request.
        owner: whose constraint it is, see `Engine.prepare`.

    Raises:
        ApiError: 400, the tools or their choice cannot be used, or the arguments of earlier calls
            have too many objects and lists.
        PromptFormatError: the messages or tools are not such as this model takes.
        ConstraintError: an answer cannot be held to what is asked for.
    """
    try:
        _check_arguments(body.messages)
        messages = as_messages(_mappings(body.messages))
        wanted_format = constraint_of(body.response_format)
        if not body.tools:
            _prepare(llama, wanted_format, owner)
            goes_on = _goes_on(body, wanted_format)
            return ChatPlan(
                llama.chat_format.encode_chat(messages, continue_last=goes_on), None, wanted_format
            )
        choice, offered = _choice(body)
        with about("tools"):
            tools = _definitions(offered)
        preamble = Preamble(tools=tuple(tools), tool_choice=choice)
        with about("tool_choice"):
            _ = preamble.demand  # an error where the choice is no tool
        may_call = [t for t in preamble.offered if choice in ("auto", "required", t.name)]
        with about("tools"):
            tool_set = ToolSet(may_call) if may_call else None
        with about("tools" if wanted_format is None else None):  # with both it may be either
            constraint = _constraint(llama, body, may_call, choice) if may_call else wanted_format
            _prepare_calls(llama, constraint, may_call, wanted_format, owner)
        goes_on = _goes_on(body, constraint)
        prompt = llama.chat_format.encode_chat(messages, continue_last=goes_on, preamble=preamble)
        return ChatPlan(prompt, tool_set, constraint, must_call=bool(may_call) and choice != "auto")
    except RecursionError as error:
        raise PromptFormatError("a call's arguments or a tool's parameters are nested too deeply") from error


def _definitions(offered: Sequence[Tool]) -> list[ToolDefinition]:
    tools = as_tools([tool.model_dump(exclude_none=True) for tool in offered])
    size = len(json.dumps([tool.parameters for tool in tools]))
    if size > _MAX_TOOLS_CHARACTERS:
        raise PromptFormatError(
            f"the parameters of all tools may have {_MAX_TOOLS_CHARACTERS} characters, got {size}"
        )
    return tools


def _choice(body: ChatBody) -> tuple[str, list[Tool]]:
    """``auto``, ``none``, ``required`` or the tool that must be called, and those that are offered."""
    wanted, tools = body.tool_choice or "auto", body.tools or []
    if isinstance(wanted, NamedTool):
        return wanted.function.name, tools
    if not isinstance(wanted, AllowedTools):
        return wanted, tools
    allowed = {tool.function.name for tool in wanted.allowed_tools.tools}
    missing = allowed - {tool.function.name for tool in tools}
    if missing:
        said = f"`tool_choice` allows {min(missing)!r:.200}, which is no tool"
        raise ApiError(400, said, param="tool_choice")
    return wanted.allowed_tools.mode, [tool for tool in tools if tool.function.name in allowed]


def _constraint(
    llama: Llama, body: ChatBody, tools: Sequence[ToolDefinition], choice: str
) -> Constraint | None:
    """What an answer must be that may call tools."""
    wanted = constraint_of(body.response_format)
    strict = {tool.name for tool in tools if tool.is_strict}
    must = choice != "auto"
    if not must and wanted is None:
        held = [tool for tool in tools if tool.name in strict and not tool.is_builtin]
        return free_answer(held, llama.chat_format.call_form) if held else None
    if not must and not isinstance(wanted, JsonSchema):
        raise ConstraintError(
            "beside `tools`, a `response_format` must be text or JSON; set `tool_choice` to none or required"
        )
    return must_call(
        tools,
        llama.chat_format.call_form,
        strict=strict,
        several=choice in ("auto", "required") and body.parallel_tool_calls is not False,
        has_tag=PYTHON_TAG in llama.tokenizer.special_tokens,
        instead=wanted if not must and isinstance(wanted, JsonSchema) else None,
    )


def _goes_on(body: ChatBody, constraint: Constraint | None) -> bool:
    """Whether the answer goes on with the last message."""
    if body.continue_final_message and constraint is not None:
        raise ApiError(
            400,
            "an answer that goes on with a message cannot be held to a form or a call, which begin anew; end "
            "the messages with the user's",
            code="invalid_constraint",
            param="continue_final_message",
        )
    return body.continue_final_message is True


def _prepare(llama: Llama, constraint: Constraint | None, owner: str) -> None:
    if constraint is not None:
        llama.engine.prepare(constraint, owner)


def _prepare_calls(
    llama: Llama,
    constraint: Constraint | None,
    tools: Sequence[ToolDefinition],
    wanted_format: Constraint | None,
    owner: str,
) -> None:
    """Prepare what is made of tools and a form; an error is about one of them, and not about our rules."""
    try:
        _prepare(llama, constraint, owner)
    except ConstraintError:
        _prepare(llama, wanted_format, owner)
        for tool in tools:
            if tool.is_strict and not tool.is_builtin:
                with about("tools"):
                    _prepare_tool(llama, tool, owner)
        raise


def _prepare_tool(llama: Llama, tool: ToolDefinition, owner: str) -> None:
    try:
        _prepare(llama, JsonSchema(tool.parameters), owner)
    except ConstraintError as error:
        raise ConstraintError(f"tool {tool.name!r}: {error}; or leave out its `strict`") from error


def _mappings(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as `as_messages` takes them; a result gets the name of the tool that was called."""
    names: dict[str, str] = {}
    mappings = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            calls = message.tool_calls or []
            names |= {call.id: call.function.name for call in calls}
            mappings.append(
                {
                    "role": "assistant",
                    "content": _content(message.content or message.refusal or ""),
                    "tool_calls": [_call(call) for call in calls],
                    "ends_turn": not calls,
                }
            )
        elif isinstance(message, ToolMessage):
            mappings.append(
                {
                    "role": "tool",
                    "content": _content(message.content),
                    "tool_call_id": message.tool_call_id,
                    "name": names.get(message.tool_call_id),
                }
            )
        else:
            role = "system" if isinstance(message, SystemMessage) else message.role
            mappings.append({"role": role, "content": _content(message.content)})
    return mappings


def _check_arguments(messages: Sequence[Message]) -> None:
    """Refuse calls that would come to too much: to the body that they came in they are mere texts."""
    spoken = [message for message in messages if isinstance(message, AssistantMessage)]
    calls = [call.function for message in spoken for call in message.tool_calls or ()]
    written = [call.arguments.encode(errors="replace") for call in calls]
    check_counts(written, "the arguments of all calls")


def _length(message: Message) -> int:
    """Characters of all that goes into the prompt."""
    n_characters = len(_content(message.content or ""))
    if isinstance(message, AssistantMessage):
        calls = [call.function for call in message.tool_calls or ()]
        n_characters += len(message.refusal or "") + sum(len(each.name + each.arguments) for each in calls)
    return n_characters


def _call(call: EarlierCall) -> dict[str, Any]:
    """An earlier call. What a model wrote in place of a JSON object is shown to it as an argument."""
    written = call.function.arguments
    try:
        arguments = json.loads(written or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": written}
    return {"id": call.id, "name": call.function.name, "arguments": arguments}


def _content(content: str | Sequence[TextPart | RefusalPart]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
