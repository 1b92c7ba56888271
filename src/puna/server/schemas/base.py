"""What all bodies have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Body", "ErrorBody", "ErrorReply", "ModelName", "Reply"]

MAX_NAME = 512
"""Characters of a model's name."""


class Body(BaseModel):
    """A request: types are not converted into one another, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)


class Reply(BaseModel):
    """A response: a field that was not set is not sent."""

    model_config = ConfigDict(protected_namespaces=())

    def as_json(self) -> str:
        """The response as JSON."""
        return self.model_dump_json(exclude_unset=True)


class ModelName(Body):
    """The model that a request names."""

    model: str = Field(min_length=1, max_length=MAX_NAME, description="Any name of a model of `/v1/models`.")


class ErrorBody(Reply):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Every error."""

    error: ErrorBody
