"""Bodies of requests for responses, as OpenAI's API has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from puna.server.schemas.base import (
    MAX_NAME,
    Body,
    CacheRetention,
    Ignored,
    Metadata,
    ModelName,
    Note,
    ToolName,
    Verbosity,
    absent,
    needs,
)
from puna.server.schemas.chat import MAX_TOOLS
from puna.server.schemas.items import InputItem, ItemId, SentText
from puna.server.schemas.response_format import TextForm
from puna.server.schemas.sampling import Drawing

__all__ = [
    "AllowedTools",
    "CompactBody",
    "ConversationRef",
    "FunctionChoice",
    "FunctionTool",
    "InputTokensBody",
    "PromptRef",
    "ReasoningConfig",
    "ResponseBody",
    "ResponseInput",
    "ResponseStreamOptions",
    "TextConfig",
]

MAX_ITEMS = 4096


class FunctionTool(Body):
    """A function that the client runs."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(
        None, description="The arguments of a call are held to the schema while they are written."
    )
    defer_loading: Ignored = None


class FunctionChoice(Body):
    """The tool that must be called."""

    type: Literal["function"]
    name: ToolName


class AllowedTools(Body):
    """The tools that the model is told of, and whether it must call one."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[FunctionChoice] = Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)


ToolChoice = (
    Literal["auto", "none", "required"]
    | Annotated[FunctionChoice | AllowedTools, Field(discriminator="type")]
)


class TextConfig(Body):
    """The form of a text."""

    format: TextForm | None = Field(None, description="What the text must be.")
    verbosity: Verbosity = None


class ReasoningConfig(Body):
    """Taken and without effect: Llama models do not reason apart from their answer."""

    effort: Note | None = None
    summary: Note | None = None
    generate_summary: Note | None = None


class ConversationRef(Body):
    """A conversation by its id."""

    id: ItemId


class PromptRef(Body):
    """A prompt that is kept, and what goes into it."""

    id: ItemId
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")] | None = None
    variables: dict[Note, str | SentText] | None = Field(None, max_length=64)


class ResponseStreamOptions(Body):
    """How events are sent."""

    include_obfuscation: bool | None = Field(None, description="Taken and without effect.")


Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ResponseInput(Drawing):
    """What a response would answer."""

    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS, fail_fast=True)] = Field(
        default_factory=list, description="A text of the user, or items."
    )
    instructions: str | None = Field(None, description="A system message in front of everything.")
    previous_response_id: ItemId | None = Field(None, description="The response that this one goes on from.")
    conversation: ItemId | ConversationRef | None = Field(
        None, description="The conversation that this response goes on, and becomes part of."
    )
    prompt: PromptRef | None = None
    tools: list[FunctionTool] | None = Field(None, max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: Annotated[ToolChoice | None, needs("tools", "`tools`", "auto", "none")] = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None,
        description="`auto` leaves out the oldest messages where not all fit; default: that is an error.",
    )

    @field_validator("tools", mode="before")
    @classmethod
    def _only_functions(cls, given: Any) -> Any:
        for tool in given if isinstance(given, list) else ():
            kind = tool.get("type") if isinstance(tool, dict) else None
            if isinstance(kind, str) and kind != "function":
                raise ValueError(
                    f"tools of type {kind!r:.60} are not supported; only those of type 'function' are, which "
                    "the client runs"
                )
        return given

    @property
    def conversation_id(self) -> str | None:
        """The conversation's id, however it was given."""
        given = self.conversation
        return given.id if isinstance(given, ConversationRef) else given


class InputTokensBody(ResponseInput):
    """Something whose tokens are counted."""

    model: str | None = Field(
        None, min_length=1, max_length=MAX_NAME, description="May be left out where one model is served."
    )


class ResponseBody(ResponseInput, ModelName):
    """Something to respond to."""

    background: bool | None = Field(None, description="Answer at once; the response is fetched later.")
    store: bool | None = Field(None, description="Keep the response; default true.")
    stream: bool | None = None
    stream_options: Annotated[ResponseStreamOptions | None, needs("stream", "`stream: true`")] = None
    include: list[Include] | None = Field(None, max_length=16, fail_fast=True)
    max_output_tokens: int | None = Field(None, ge=16, le=2**31 - 1)
    max_tool_calls: int | None = Field(
        None, ge=1, le=2**31 - 1, description="Of tools that the server runs; it runs none yet."
    )
    max_infer_iters: int | None = Field(
        None, ge=1, le=2**31 - 1, description="The same, as Llama Stack has it."
    )
    metadata: Metadata | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Note | None = Field(None, description="Taken and without effect.")
    prompt_cache_key: Note | None = Field(None, description="Taken and without effect.")
    prompt_cache_options: Ignored = None
    prompt_cache_retention: CacheRetention = None
    context_management: Annotated[None, absent("a context is not managed by itself yet")] = None
    moderation: Annotated[None, absent("responses are not moderated")] = None
    user: str | None = Field(None, max_length=512, description="Taken and without effect.")


class CompactBody(ModelName):
    """A conversation to be made short."""

    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS, fail_fast=True)] | None = Field(
        None, description="A text of the user, or items."
    )
    instructions: str | None = Field(None, description="A system message in front of everything.")
    previous_response_id: ItemId | None = Field(None, description="What was said up to this response.")
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: Note | None = Field(None, description="Taken and without effect.")
    prompt_cache_retention: CacheRetention = None
