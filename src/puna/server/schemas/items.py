"""Items: what responses and conversations are made of, as clients send them and as they are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from puna.server.schemas.base import Body, Ignored, Parsed, Reply, ToolName
from puna.server.schemas.chat import MAX_PARTS

__all__ = [
    "Compaction",
    "CompactionItem",
    "ContentPart",
    "FunctionCall",
    "FunctionCallItem",
    "FunctionOutput",
    "FunctionOutputItem",
    "InputItem",
    "InputPart",
    "InputText",
    "Item",
    "ItemId",
    "ItemReference",
    "Message",
    "MessageItem",
    "OutputLogprob",
    "OutputText",
    "OutputTopLogprob",
    "Reasoning",
    "ReasoningItem",
    "Refusal",
    "Role",
    "SentItem",
    "SentOutput",
    "SentRefusal",
    "SentText",
    "Status",
]

Status = Literal["in_progress", "completed", "incomplete"]
Role = Literal["user", "assistant", "system", "developer"]

ItemId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Sent(Body):
    """What a client sends; it may be what it was sent before, with null where nothing was given."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {
                key: value for key, value in given.items() if value is not None or key in cls.model_fields
            }
        return given


class SentText(_Sent):
    """A text to the model."""

    type: Literal["input_text"]
    text: str


class SentOutput(_Sent):
    """A text that the model said earlier."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = Field(
        None, max_length=MAX_PARTS, description="Taken and without effect.", fail_fast=True
    )
    logprobs: list[Any] | None = Field(
        None, max_length=2**20, description="Taken and without effect.", fail_fast=True
    )
    parsed: Parsed = None


class SentRefusal(_Sent):
    """What the model refused earlier."""

    type: Literal["refusal"]
    refusal: str


InputPart = Annotated[SentText | SentOutput | SentRefusal, Field(discriminator="type")]


class MessageItem(_Sent):
    """What somebody says."""

    type: Literal["message"] = "message"
    role: Role
    content: str | Annotated[list[InputPart], Field(max_length=MAX_PARTS, fail_fast=True)]
    id: ItemId | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = Field(None, description="Taken and without effect.")


class FunctionCallItem(_Sent):
    """A call that the model made earlier."""

    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: str
    parsed_arguments: Parsed = None
    namespace: Ignored = None
    created_by: Ignored = None
    id: ItemId | None = None
    status: Status | None = None


class FunctionOutputItem(_Sent):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: str | Annotated[list[SentText], Field(max_length=MAX_PARTS, fail_fast=True)]
    created_by: Ignored = None
    id: ItemId | None = None
    status: Status | None = None


class ReasoningItem(_Sent):
    """What another model thought; kept, and not shown to this one."""

    type: Literal["reasoning"]
    id: ItemId | None = None
    summary: list[Any] = Field(default_factory=list, max_length=MAX_PARTS, fail_fast=True)
    content: list[Any] | None = Field(None, max_length=MAX_PARTS, fail_fast=True)
    encrypted_content: str | None = None
    status: Status | None = None


class CompactionItem(_Sent):
    """The summary of what was said before, as `/responses/compact` gave it."""

    type: Literal["compaction"]
    encrypted_content: str
    id: ItemId | None = None


class ItemReference(_Sent):
    """An item of a response or conversation that is kept, in place of the item itself."""

    type: Literal["item_reference"] | None = None
    id: ItemId


def _kind(given: Any) -> str | None:
    """The kind of an item; a message and a reference may leave it out."""
    if isinstance(given, dict):
        untold = "message" if "role" in given else "item_reference" if "id" in given else None
        kind = given.get("type") or untold
        return kind if isinstance(kind, str) else None
    return getattr(given, "type", None)


SentItem = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem | CompactionItem
InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_kind),
]


class InputText(Reply):
    """A text to the model."""

    type: Literal["input_text"]
    text: str


class OutputTopLogprob(Reply):
    """A token and how likely it is."""

    token: str
    bytes: list[int]
    logprob: float


class OutputLogprob(OutputTopLogprob):
    """A token of an answer, with the likeliest at its place."""

    top_logprobs: list[OutputTopLogprob]


class OutputText(Reply):
    """A text of the model."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[OutputLogprob]


class Refusal(Reply):
    """What the model refused."""

    type: Literal["refusal"]
    refusal: str


ContentPart = Annotated[InputText | OutputText | Refusal, Field(discriminator="type")]


class Message(Reply):
    """What somebody said."""

    type: Literal["message"]
    id: str
    status: Status
    role: Role
    content: list[ContentPart]


class FunctionCall(Reply):
    """A call that the client is to run."""

    type: Literal["function_call"]
    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


class FunctionOutput(Reply):
    """The result of a call."""

    type: Literal["function_call_output"]
    id: str
    status: Status
    call_id: str
    output: str | list[InputText]


class Reasoning(Reply):
    """What another model thought."""

    type: Literal["reasoning"]
    id: str
    status: Status
    summary: list[Any]
    content: list[Any] | None = None
    encrypted_content: str | None = None


class Compaction(Reply):
    """The summary of what was said before."""

    type: Literal["compaction"]
    id: str
    encrypted_content: str


Item = Annotated[
    Message | FunctionCall | FunctionOutput | Reasoning | Compaction, Field(discriminator="type")
]
