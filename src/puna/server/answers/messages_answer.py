"""Anthropic's messages: from their body to a chat request, and from parts of an answer to blocks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json

from puna.engine.request import Usage
from puna.engine.stop import first_stop
from puna.errors import PromptFormatError
from puna.prompt.call_events import CallStarted
from puna.prompt.call_events import TextDelta as NewText
from puna.server.answers.choices import Choices
from puna.server.answers.parts import Part
from puna.server.ids import new_id
from puna.server.schemas import chat
from puna.server.schemas.base import NamedEvent
from puna.server.schemas.message_events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    InputDelta,
    MessageDelta,
    MessageEnd,
    MessageStart,
    MessageStop,
    Ping,
    TextDelta,
)
from puna.server.schemas.messages import (
    AnyChoice,
    CountBody,
    DeltaUsage,
    MessageReply,
    MessagesBody,
    MessagesUsage,
    NamedChoice,
    SentMessage,
    StopReason,
    TextBlock,
    TextParam,
    ToolResultParam,
    ToolUseBlock,
    ToolUseParam,
)
from puna.server.schemas.response_format import JsonSchemaFormat, NamedSchema

__all__ = ["MessagesAnswer", "chat_of"]


def chat_of(body: CountBody) -> chat.ChatBody:
    """The chat request that a conversation of Anthropic's comes to.

    Args:
        body: the request.

    Raises:
        PromptFormatError: it comes to more messages, or more calls in one, than a chat may have.
    """
    messages: list[chat.Message] = []
    system = (
        body.system if isinstance(body.system, str) else "\n\n".join(part.text for part in body.system or ())
    )
    if system:
        messages.append(chat.SystemMessage(role="system", content=system))
    for sent in body.messages:
        messages += _said(sent)
    if len(messages) > chat.MAX_MESSAGES:
        raise PromptFormatError(
            f"`system`, `messages` and each result of a tool count as messages: there may be "
            f"{chat.MAX_MESSAGES}, got {len(messages)}; begin another conversation"
        )
    tools = [
        chat.Tool(
            type="function",
            function=chat.FunctionTool(
                name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict
            ),
        )
        for tool in body.tools or ()
    ]
    given: dict[str, Any] = {"model": body.model, "messages": messages}
    if body.output_config and body.output_config.format:
        schema = body.output_config.format.json_schema
        named = NamedSchema.model_validate({"name": "answer", "schema": schema})
        given["response_format"] = JsonSchemaFormat(type="json_schema", json_schema=named)
    if tools:
        given |= {"tools": tools, "tool_choice": _choice(body)}
    last = messages[-1]
    if isinstance(last, chat.AssistantMessage) and last.content and not last.tool_calls:
        given["continue_final_message"] = True
    choice = body.tool_choice
    if isinstance(choice, AnyChoice | NamedChoice) and choice.disable_parallel_tool_use:
        given["parallel_tool_calls"] = False
    if isinstance(body, MessagesBody):
        given |= {name: getattr(body, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
        given["stop"] = body.stop_sequences or None
    return chat.ChatBody(**given)


class MessagesAnswer:
    """Puts one answer together."""

    def __init__(self, choices: Choices, body: MessagesBody) -> None:
        """Prepare the answer to a request.

        Args:
            choices: the answer, alone.
            body: the request.
        """
        self._choices = choices
        self._body = body
        self._blocks: list[TextBlock | ToolUseBlock] = []
        self._inputs: dict[int, str] = {}  # of calls, by their block
        self._is_open = False
        self._tokens: list[int] = []
        self._id = new_id("msg_")

    async def whole(self) -> MessageReply:
        """Wait for all of it."""
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        for index, given in self._inputs.items():
            block = self._blocks[index]
            assert isinstance(block, ToolUseBlock), "inputs are those of calls"
            block.input = _input(given)
        end = self._end()
        return self._message(self._blocks, end.stop_reason, end.stop_sequence, self._usage())

    async def events(self) -> AsyncGenerator[NamedEvent]:
        """The events of a stream, as they come."""
        has_begun = False
        async with aclosing(self._choices.arriving()) as arriving:
            async for _, parts, event in arriving:
                self._tokens += event.tokens
                if not has_begun:
                    # Not before the engine took the request, so that a refusal can be an error response.
                    has_begun = True
                    usage = _usage(self._choices.n_prompt_tokens, None)
                    yield MessageStart(type="message_start", message=self._message([], None, None, usage))
                    yield Ping(type="ping")
                for each in self._more(parts):
                    yield each
        for each in self._close():
            yield each
        usage = self._usage()
        yield MessageDelta(
            type="message_delta",
            delta=self._end(),
            usage=DeltaUsage(**usage.model_dump(exclude={"service_tier"})),
        )
        yield MessageStop(type="message_stop")

    def _more(self, parts: Sequence[Part]) -> Iterator[NamedEvent]:
        for part in parts:
            if isinstance(part, NewText):
                block = self._blocks[-1] if self._is_open else None
                if not isinstance(block, TextBlock):
                    block = TextBlock(type="text", text="")
                    yield from self._begin(block)
                block.text += part.text
                yield self._delta(TextDelta(type="text_delta", text=part.text))
            elif isinstance(part, CallStarted):
                yield from self._begin(
                    ToolUseBlock(type="tool_use", id=new_id("toolu_"), name=part.name, input={})
                )
                self._inputs[len(self._blocks) - 1] = ""
            else:
                self._inputs[len(self._blocks) - 1] += part.json
                yield self._delta(InputDelta(type="input_json_delta", partial_json=part.json))

    def _begin(self, block: TextBlock | ToolUseBlock) -> Iterator[NamedEvent]:
        yield from self._close()
        self._blocks.append(block)
        self._is_open = True
        yield BlockStart(
            type="content_block_start", index=len(self._blocks) - 1, content_block=block.model_copy()
        )

    def _close(self) -> Iterator[NamedEvent]:
        if self._is_open:
            self._is_open = False
            yield BlockStop(type="content_block_stop", index=len(self._blocks) - 1)

    def _delta(self, delta: TextDelta | InputDelta) -> NamedEvent:
        return BlockDelta(type="content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def _end(self) -> MessageEnd:
        reasons: dict[str, StopReason] = {"length": "max_tokens", "tool_calls": "tool_use"}
        end = self._choices.end(0)
        assert end is not None, "the answer is not over"
        stop = self._met() if end == "stop" else None
        reason = "stop_sequence" if stop else reasons.get(end, "end_turn")
        return MessageEnd(stop_reason=reason, stop_sequence=stop)

    def _met(self) -> str | None:
        """The stop text that ended the answer, in which no call was made: all that the model said is text."""
        found = first_stop(self._choices.tokenizer.decode(self._tokens), self._body.stop_sequences or ())
        return found[1] if found else None

    def _usage(self) -> MessagesUsage:
        usage = self._choices.usages[0]
        return _usage(usage.prompt_tokens, usage)

    def _message(
        self,
        content: Sequence[TextBlock | ToolUseBlock],
        reason: StopReason | None,
        stop: str | None,
        usage: MessagesUsage,
    ) -> MessageReply:
        return MessageReply(
            id=self._id,
            type="message",
            role="assistant",
            model=self._body.model,
            content=list(content),
            stop_reason=reason,
            stop_sequence=stop,
            usage=usage,
        )


def _usage(n_prompt: int, usage: Usage | None) -> MessagesUsage:
    cached = usage.cached_tokens if usage else 0
    return MessagesUsage(
        input_tokens=n_prompt - cached,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens if usage else 0,
        service_tier="standard",
    )


def _input(given: str) -> dict[str, Any]:
    """A call's input; of one that was cut, what Anthropic's clients make of a stream that ends there."""
    try:
        found: dict[str, Any] = json.loads(given or "{}")
    except ValueError:
        found = from_json(given, allow_partial=True)
    return found


def _choice(body: CountBody) -> str | chat.NamedTool | None:
    choice = body.tool_choice
    if isinstance(choice, NamedChoice):
        return chat.NamedTool(type="function", function=chat.NamedFunction(name=choice.name))
    return {"any": "required"}.get(choice.type, choice.type) if choice else None


def _said(sent: SentMessage) -> Iterator[chat.Message]:
    """Messages of a chat: results come first, since they answer what was said before."""
    blocks = [] if isinstance(sent.content, str) else sent.content
    texts = [block.text for block in blocks if isinstance(block, TextParam)]
    text = sent.content if isinstance(sent.content, str) else "".join(texts)
    calls = [_call(block) for block in blocks if isinstance(block, ToolUseParam)]
    results = [_result(block) for block in blocks if isinstance(block, ToolResultParam)]
    if len(calls) > chat.MAX_TOOLS:
        raise PromptFormatError(
            f"a message may have {chat.MAX_TOOLS} blocks `tool_use`, got {len(calls)}; divide them"
        )
    if sent.role == "assistant":
        yield chat.AssistantMessage(role="assistant", content=text or None, tool_calls=calls or None)
    yield from results
    if sent.role == "user" and (text or not results):
        yield chat.UserMessage(role="user", content=text)


def _call(block: ToolUseParam) -> chat.EarlierCall:
    function = chat.CalledFunction(name=block.name, arguments=json.dumps(block.input))
    return chat.EarlierCall(id=block.id, function=function)


def _result(block: ToolResultParam) -> chat.ToolMessage:
    content = block.content or ""
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    if block.is_error:
        text = f"Error: {text}"
    return chat.ToolMessage(role="tool", content=text, tool_call_id=block.tool_use_id)
