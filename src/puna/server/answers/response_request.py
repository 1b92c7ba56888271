"""From the body of a response to a chat request, and to the response before anything was said."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from puna.engine.request import SamplingParams
from puna.errors import PromptFormatError
from puna.server.answers.items import as_chat
from puna.server.ids import new_id
from puna.server.schemas import chat
from puna.server.schemas.items import Item
from puna.server.schemas.response_format import as_response_format
from puna.server.schemas.response_replies import ConversationLink, Response
from puna.server.schemas.responses import (
    AllowedTools,
    FunctionChoice,
    ResponseBody,
    ResponseInput,
    ToolChoice,
)

__all__ = ["begin_response", "chat_of"]

_ID_BYTES = 24
_DRAWING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
    "seed",
)  # fmt: skip
_DEFAULTS = SamplingParams()


def chat_of(body: ResponseInput, model: str, items: Sequence[Item], standing: Sequence[str]) -> chat.ChatBody:
    """The chat request that a response comes to.

    Args:
        body: the request.
        model: what is to answer.
        items: all that was said, the newest last.
        standing: instructions that come before it.

    Raises:
        PromptFormatError: nothing was said, or too much.
    """
    messages: list[chat.Message] = [
        chat.SystemMessage(role="system", content=text) for text in standing if text
    ]
    messages += as_chat(items)
    if not messages:
        raise PromptFormatError("there is nothing to respond to; give an `input`")
    if len(messages) > chat.MAX_MESSAGES:
        raise PromptFormatError(
            f"a conversation may have {chat.MAX_MESSAGES} messages, got {len(messages)}; begin another"
        )
    tools = [
        chat.Tool(
            type="function",
            function=chat.FunctionTool(
                name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
            ),
        )
        for tool in body.tools or []
    ]
    given: dict[str, Any] = {"model": model, "messages": messages}
    given |= {name: getattr(body, name) for name in (*_DRAWING, "parallel_tool_calls")}
    if tools:
        given |= {"tools": tools, "tool_choice": _choice(body.tool_choice)}
    if body.text is not None:
        given["response_format"] = as_response_format(body.text.format)
    if isinstance(body, ResponseBody):
        given["max_completion_tokens"] = body.max_output_tokens
        if "message.output_text.logprobs" in (body.include or ()):
            given |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    return chat.ChatBody(**given)


def begin_response(body: ResponseBody, prompt: Mapping[str, Any] | None) -> Response:
    """The response before anything was said.

    Args:
        body: the request.
        prompt: the stored prompt that it uses.
    """
    text: dict[str, Any] = {"format": {"type": "text"}}
    if body.text is not None:
        text |= body.text.model_dump(by_alias=True, exclude_none=True)
    choice = body.tool_choice or "auto"
    conversation = body.conversation_id
    return Response(
        id=new_id("resp_", _ID_BYTES),
        object="response",
        created_at=int(time.time()),
        completed_at=None,
        status="in_progress",
        background=body.background is True,
        error=None,
        incomplete_details=None,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        model=body.model,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        conversation=ConversationLink(id=conversation) if conversation else None,
        prompt=dict(prompt) if prompt else None,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=_reasoning(body),
        safety_identifier=body.safety_identifier,
        service_tier="default",
        store=body.store is not False,
        temperature=_DEFAULTS.temperature if body.temperature is None else body.temperature,
        text=text,
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
        tools=[_tool(tool.model_dump(exclude={"defer_loading"})) for tool in body.tools or []],
        top_logprobs=body.top_logprobs or 0,
        top_p=_DEFAULTS.top_p if body.top_p is None else body.top_p,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        truncation=body.truncation or "disabled",
        usage=None,
        user=body.user,
        metadata=body.metadata or {},
    )


def _choice(choice: ToolChoice | None) -> chat.ToolChoice | None:
    if isinstance(choice, FunctionChoice):
        return _named(choice)
    if isinstance(choice, AllowedTools):
        names = chat.AllowedNames(mode=choice.mode, tools=[_named(tool) for tool in choice.tools])
        return chat.AllowedTools(type="allowed_tools", allowed_tools=names)
    return choice


def _named(choice: FunctionChoice) -> chat.NamedTool:
    return chat.NamedTool(type="function", function=chat.NamedFunction(name=choice.name))


def _reasoning(body: ResponseBody) -> dict[str, Any]:
    given = body.reasoning
    return {"effort": given.effort if given else None, "summary": given.summary if given else None}


def _tool(given: dict[str, Any]) -> dict[str, Any]:
    """A tool with the fields that clients' types demand."""
    return {**given, "strict": given["strict"] is True, "parameters": given["parameters"] or {}}
