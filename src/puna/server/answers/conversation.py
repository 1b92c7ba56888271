"""From the messages and tools of a chat request to a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from puna.errors import PromptFormatError
from puna.llama import Llama
from puna.prompt import Preamble, as_messages, as_tools
from puna.prompt.tool_schema import ToolSet
from puna.server.schemas.chat import (
    AssistantMessage,
    ChatBody,
    Content,
    Message,
    NamedTool,
    SystemMessage,
    ToolMessage,
)

__all__ = ["ChatPlan", "plan_chat"]

_MAX_TOOLS_CHARACTERS = 262_144  # more would take seconds to look at, and no model could read it


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """What a chat request comes to for a model.

    Attributes:
        prompt: token ids.
        tools: those that an answer may call, None where it calls none.
    """

    prompt: Sequence[int]
    tools: ToolSet | None


def plan_chat(llama: Llama, body: ChatBody) -> ChatPlan:
    """Encode a conversation; may take a while for a long one.

    Args:
        llama: the model.
        body: the request.

    Raises:
        PromptFormatError: the messages or tools are not such as this model takes.
    """
    try:
        messages = as_messages(_mappings(body.messages))
        if not body.tools:
            return ChatPlan(llama.chat_format.encode_chat(messages), None)
        tools = as_tools([tool.model_dump(exclude_none=True) for tool in body.tools])
        size = len(json.dumps([tool.parameters for tool in tools]))
        if size > _MAX_TOOLS_CHARACTERS:
            raise PromptFormatError(
                f"the parameters of all tools may have {_MAX_TOOLS_CHARACTERS} characters, got {size}"
            )
        wanted = body.tool_choice or "auto"
        choice = wanted.function.name if isinstance(wanted, NamedTool) else wanted
        preamble = Preamble(tools=tuple(tools), tool_choice=choice)
        may_call = [t for t in preamble.offered if choice in ("auto", "required", t.name)]
        prompt = llama.chat_format.encode_chat(messages, preamble=preamble)
        return ChatPlan(prompt, ToolSet(may_call) if may_call else None)
    except RecursionError as error:
        raise PromptFormatError("a call's arguments or a tool's parameters are nested too deeply") from error


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
                    "tool_calls": [call.model_dump() for call in calls],
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


def _content(content: Content) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
