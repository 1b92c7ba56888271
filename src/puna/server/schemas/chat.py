"""Chat completions, as OpenAI's API has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from puna.server.schemas.base import (
    Body,
    CacheRetention,
    Ignored,
    Metadata,
    Note,
    Parsed,
    Reply,
    ToolName,
    Verbosity,
    absent,
    needs,
)
from puna.server.schemas.sampling import Sampling
from puna.server.schemas.usage import Usage

__all__ = [
    "AllowedNames",
    "AllowedTools",
    "AnswerMessage",
    "AssistantMessage",
    "CalledFunction",
    "ChatBody",
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatLogprobs",
    "ChunkChoice",
    "Delta",
    "EarlierCall",
    "FinishReason",
    "FunctionCall",
    "FunctionDelta",
    "FunctionTool",
    "LogprobEntry",
    "NamedFunction",
    "NamedTool",
    "RefusalPart",
    "SystemMessage",
    "TextPart",
    "TokenChance",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolMessage",
    "UserMessage",
]

MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_PARTS = 1024
FinishReason = Literal["stop", "length", "tool_calls"]


class TextPart(Body):
    """A piece of text."""

    type: Literal["text"]
    text: str
    cache_control: Ignored = None
    prompt_cache_breakpoint: Ignored = None


class RefusalPart(Body):
    """What the model refused earlier."""

    type: Literal["refusal"]
    refusal: str


Content = str | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class CalledFunction(Body):
    """A call that the model made earlier."""

    name: ToolName
    arguments: str
    parsed_arguments: Parsed = None


class EarlierCall(Body):
    """A call that the model made earlier, with its id."""

    id: Note
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[int | None, Field(description="In a stream; taken and without effect.")] = None
    provider_specific_fields: Ignored = None


class SystemMessage(Body):
    """Standing instructions."""

    role: Literal["system", "developer"]
    content: Content
    name: Note | None = None


class UserMessage(Body):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: Note | None = None


class AssistantMessage(Body):
    """What the model said."""

    role: Literal["assistant"]
    content: (
        str
        | Annotated[
            list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]],
            Field(max_length=MAX_PARTS, fail_fast=True),
        ]
        | None
    ) = None
    tool_calls: Annotated[list[EarlierCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    name: Note | None = None
    refusal: str | None = None
    # As clients send back the answer that they got, from here or from OpenAI.
    annotations: Annotated[
        list[Any] | None,
        Field(max_length=MAX_PARTS, fail_fast=True, description="Taken and without effect."),
    ] = None
    audio: Annotated[None, absent("no answer has sound")] = None
    function_call: Annotated[None, absent("calls are in `tool_calls`")] = None
    parsed: Parsed = None
    id: Ignored = None
    reasoning: Ignored = None
    reasoning_content: Ignored = None
    reasoning_details: Ignored = None
    thinking_blocks: Ignored = None
    provider_specific_fields: Ignored = None


class ToolMessage(Body):
    """The result of a call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Note
    name: Annotated[Note | None, Field(description="Taken and without effect.")] = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionTool(Body):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(
        None, description="The arguments of a call are held to the schema while they are written."
    )


class Tool(Body):
    """A tool that the client runs."""

    type: Literal["function"]
    function: FunctionTool


class NamedFunction(Body):
    """The function that must be called."""

    name: ToolName


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class AllowedNames(Body):
    """Tools of those that there are."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)


class AllowedTools(Body):
    """The tools that the model is told of, and whether it must call one."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedNames


ToolChoice = (
    Literal["auto", "none", "required"] | Annotated[NamedTool | AllowedTools, Field(discriminator="type")]
)


class ChatBody(Sampling):
    """A conversation to be answered."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Of the answer, at most; default: what the context has room for.",
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="The same as `max_tokens`, and goes before it."
    )
    logprobs: bool | None = Field(None, description="Tell how likely each token of the answer was.")
    top_logprobs: Annotated[int | None, needs("logprobs", "`logprobs: true`")] = Field(
        None, ge=0, le=20, description="And so many others at its place."
    )
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: Annotated[ToolChoice | None, needs("tools", "`tools`", "auto", "none")] = None
    parallel_tool_calls: bool | None = Field(None, description="False: an answer ends behind its first call.")
    continue_final_message: bool | None = Field(
        None, description="Go on with the last message, the assistant's, in place of answering it."
    )
    modalities: list[Literal["text"]] | None = Field(None, max_length=1, fail_fast=True)
    metadata: Metadata | None = Field(None, description="Kept with a completion that is stored.")
    store: bool | None = Field(None, description="Keep the completion, for `GET /chat/completions`.")
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Note | None = Field(None, description="Taken and without effect.")
    prompt_cache_key: Note | None = Field(None, description="Taken and without effect.")
    prompt_cache_options: Ignored = None
    prompt_cache_retention: CacheRetention = None
    reasoning_effort: Note | None = Field(None, description="Taken and without effect.")
    verbosity: Verbosity = None
    audio: Annotated[None, absent("no answer has sound")] = None
    functions: Annotated[None, absent("functions are given as `tools`")] = None
    function_call: Annotated[None, absent("what must be called is said by `tool_choice`")] = None
    moderation: Annotated[None, absent("answers are not moderated")] = None
    prediction: Annotated[None, absent("an answer cannot be predicted")] = None
    web_search_options: Annotated[None, absent("the server does not search the web")] = None


class TokenChance(Reply):
    """A token and how likely it is."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobEntry(TokenChance):
    """A token of the answer, with the likeliest at its place."""

    top_logprobs: list[TokenChance]


class ChatLogprobs(Reply):
    """Log-probabilities of an answer's tokens."""

    content: list[LogprobEntry]
    refusal: None = None


class FunctionCall(Reply):
    """What is called, with arguments as JSON in a text."""

    name: str
    arguments: str


class ToolCall(Reply):
    """A call that the client is to run."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(Reply):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(Reply):
    """One answer and why it ended."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Reply):
    """All answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class FunctionDelta(Reply):
    """More of a call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Reply):
    """More of a call; id, type and name come first and once."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Reply):
    """More of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Reply):
    """More of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None


class ChatChunk(Reply):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str
