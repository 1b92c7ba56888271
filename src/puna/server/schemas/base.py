"""What all bodies have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticSerializationError

__all__ = [
    "AnthropicErrorBody",
    "AnthropicErrorReply",
    "Body",
    "CacheRetention",
    "Deleted",
    "ErrorBody",
    "ErrorReply",
    "Ignored",
    "Metadata",
    "MetadataBody",
    "ModelName",
    "NamedEvent",
    "Note",
    "Parsed",
    "Reply",
    "ToolName",
    "Verbosity",
    "Written",
    "absent",
    "needs",
]

MAX_NAME = 512
"""Characters of a model's name."""


_NO_NUL = r"^[^\x00]*$"  # PostgreSQL's texts have none

Note = Annotated[str, StringConstraints(max_length=256)]
"""A short text: an id or a name that a client made, or a word that is taken and without effect."""

Parsed = Annotated[Any, Field(description="What a client has read from the text; taken and without effect.")]
"""OpenAI's clients send it back where they have parsed an answer."""

Ignored = Annotated[Any, Field(description="Taken and without effect.")]
"""What other servers make something of, and clients send to all."""

Verbosity = Annotated[Literal["low", "medium", "high"] | None, Field(description="Taken and without effect.")]
CacheRetention = Annotated[
    Literal["in_memory", "in-memory", "24h"] | None, Field(description="Taken and without effect.")
]

ToolName = Annotated[str, StringConstraints(min_length=1, max_length=128)]

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_NO_NUL)],
        Annotated[str, StringConstraints(max_length=512, pattern=_NO_NUL)],
    ],
    Field(max_length=16),
]
"""What a client notes about what is kept for it, and finds it by."""


T = TypeVar("T")


class Body(BaseModel):
    """A request: types are not converted into one another, and unknown fields are errors.

    Lists have a `max_length`, and `fail_fast`: with a complaint for each entry a small body would take half a
    minute and gigabytes.
    """

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)


def needs(name: str, said: str, *harmless: str) -> AfterValidator:
    """A field that would change nothing without another one, which stands before it; for ``Annotated``.

    Args:
        name: the other field.
        said: what is needed, as the client is told.
        harmless: values, or types of them, that ask for nothing, beside false ones.

    Returns:
        What refuses the field where the other one is not there.
    """

    def check(value: T, others: ValidationInfo) -> T:
        if value and getattr(value, "type", value) not in harmless and not others.data.get(name):
            raise ValueError(f"needs {said}; give that, or leave this out")
        return value

    return AfterValidator(check)


def absent(said: str, *harmless: str) -> BeforeValidator:
    """A field that may only be null, as some clients send what they leave out; for ``Annotated[None, …]``.

    Args:
        said: why there is no such thing, as the client is told.
        harmless: values that ask for nothing, beside null.
    """

    def check(value: Any) -> Any:
        if value is not None and value not in harmless:
            raise ValueError(f"{said}; leave this out")
        return value

    return BeforeValidator(check)


class Reply(BaseModel):
    """A response: a field that was not set is not sent."""

    model_config = ConfigDict(protected_namespaces=())

    def as_json(self) -> str:
        """The response as JSON."""
        try:
            return self.model_dump_json(exclude_unset=True)
        except (
            PydanticSerializationError
        ):  # half a surrogate pair of a client, which JSON has in escapes only
            return json.dumps(self.model_dump(exclude_unset=True), allow_nan=False)


class NamedEvent(Reply):
    """An event of a stream whose events have names."""

    type: str


@dataclass(frozen=True, slots=True)
class Written:
    """An event as it was written once, to be sent again.

    Attributes:
        type: its name.
        json: all of it.
    """

    type: str
    json: str

    def as_json(self) -> str:
        """The event as JSON."""
        return self.json


class ModelName(Body):
    """The model that a request names."""

    model: str = Field(min_length=1, max_length=MAX_NAME, description="Any name of a model of `/v1/models`.")


class MetadataBody(Body):
    """New `metadata`, in place of all that was there."""

    metadata: Metadata | None


class Deleted(Reply):
    """Something is not kept any more."""

    id: str
    object: str
    deleted: bool


class ErrorBody(Reply):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Every error."""

    error: ErrorBody


class AnthropicErrorBody(Reply):
    """What is wrong, as Anthropic's API says it."""

    type: str
    message: str


class AnthropicErrorReply(Reply):
    """Every error of Anthropic's routes."""

    type: Literal["error"]
    error: AnthropicErrorBody
