"""Messages, as Anthropic's API has them: bodies of requests, and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from puna.server.schemas.base import Body, Ignored, ModelName, Note, Reply, ToolName, needs
from puna.server.schemas.chat import MAX_MESSAGES, MAX_PARTS, MAX_TOOLS
from puna.server.schemas.sampling import MAX_STOP, StopText

__all__ = [
    "AnyChoice",
    "Block",
    "CacheControl",
    "ClearThinking",
    "ContextManagement",
    "CountBody",
    "DeltaUsage",
    "MessageReply",
    "MessagesBody",
    "MessagesMetadata",
    "MessagesUsage",
    "NamedChoice",
    "NoChoice",
    "OutputConfig",
    "OutputFormat",
    "RedactedThinkingParam",
    "SentMessage",
    "StopReason",
    "TextBlock",
    "TextParam",
    "Thinking",
    "ThinkingParam",
    "TokenCount",
    "ToolParam",
    "ToolResultParam",
    "ToolUseBlock",
    "ToolUseParam",
]

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class CacheControl(Body):
    """Taken and without effect: the beginning of every prompt is cached."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Block(Body):
    cache_control: CacheControl | None = None


class TextParam(_Block):
    """A text."""

    type: Literal["text"]
    text: str
    citations: list[Any] | None = Field(None, max_length=0, fail_fast=True)


class ToolUseParam(_Block):
    """A call that the model made earlier."""

    type: Literal["tool_use"]
    id: Note
    name: ToolName
    input: dict[str, Any]
    caller: dict[str, Any] | None = Field(None, description="Taken and without effect.")
    toolset_name: None = Field(None, description="Always null: there are no sets of tools.")


class ToolResultParam(_Block):
    """The result of a call."""

    type: Literal["tool_result"]
    tool_use_id: Note
    content: str | Annotated[list[TextParam], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    is_error: bool | None = None


class ThinkingParam(Body):
    """What another model thought; not shown to this one."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingParam(Body):
    """The same, unreadable."""

    type: Literal["redacted_thinking"]
    data: str


BlockParam = Annotated[
    TextParam | ToolUseParam | ToolResultParam | ThinkingParam | RedactedThinkingParam,
    Field(discriminator="type"),
]


class SentMessage(Body):
    """What somebody said."""

    role: Literal["user", "assistant"]
    content: str | Annotated[list[BlockParam], Field(max_length=MAX_PARTS, fail_fast=True)]


class ToolParam(_Block):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = Field(
        None, description="The arguments of a call are held to the schema while they are written."
    )
    allowed_callers: Ignored = None
    defer_loading: Ignored = None
    eager_input_streaming: Ignored = None
    input_examples: Ignored = None


class AnyChoice(Body):
    """Whether tools are called."""

    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool | None = None


class NoChoice(Body):
    """No tool is called."""

    type: Literal["none"]


class NamedChoice(Body):
    """The tool that must be called."""

    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


ToolChoice = AnyChoice | NoChoice | NamedChoice


class Thinking(Body):
    """Taken and without effect: Llama models do not think apart from their answer."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=0)
    display: Note | None = None


class OutputFormat(Body):
    """JSON as a schema says."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """What the answer must be."""

    format: OutputFormat | None = None
    effort: Note | None = Field(None, description="Taken and without effect.")


class MessagesMetadata(Body):
    """Taken and without effect."""

    user_id: str | None = Field(None, max_length=512)


class ClearThinking(Body):
    """Taken and without effect: earlier thoughts are not shown to the model anyway."""

    type: Literal["clear_thinking_20251015"]
    keep: Ignored = None


class ContextManagement(Body):
    """What is left out of a long conversation."""

    edits: list[ClearThinking] | None = Field(None, max_length=MAX_PARTS, fail_fast=True)


class CountBody(ModelName):
    """A conversation whose tokens are counted."""

    messages: list[SentMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    system: str | Annotated[list[TextParam], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    tools: list[ToolParam] | None = Field(None, max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: Annotated[
        Annotated[ToolChoice, Field(discriminator="type")] | None, needs("tools", "`tools`", "auto", "none")
    ] = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    context_management: ContextManagement | None = None

    @field_validator("tools", mode="before")
    @classmethod
    def _only_own_tools(cls, given: Any) -> Any:
        for tool in given if isinstance(given, list) else ():
            kind = tool.get("type") if isinstance(tool, dict) else None
            if isinstance(kind, str) and kind != "custom":
                raise ValueError(
                    f"tools of type {kind!r:.60} are not supported; only those with an `input_schema` are, "
                    "which the client runs"
                )
        return given


class MessagesBody(CountBody):
    """A conversation to be answered."""

    max_tokens: int = Field(ge=1, le=2**31 - 1)
    stop_sequences: list[StopText] | None = Field(None, max_length=MAX_STOP, fail_fast=True)
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=1, description="Default 0.6, as Meta ships Llama 3.")
    top_p: float | None = Field(None, ge=0, le=1, description="Default 0.9.")
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    metadata: MessagesMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: Note | None = Field(None, description="Taken and without effect.")


class TextBlock(Reply):
    """A text of the model."""

    type: Literal["text"]
    text: str


class ToolUseBlock(Reply):
    """A call that the client is to run."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


Block = Annotated[TextBlock | ToolUseBlock, Field(discriminator="type")]


class DeltaUsage(Reply):
    """Tokens of an answer; those of the prompt that were cached count apart."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessagesUsage(DeltaUsage):
    """The same, and how it was served."""

    service_tier: Literal["standard"]


class MessageReply(Reply):
    """The answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessagesUsage


class TokenCount(Reply):
    """How long a prompt is."""

    input_tokens: int
