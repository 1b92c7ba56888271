"""Prompts, as Llama Stack's API has them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from puna.server.schemas.base import Body, Reply

__all__ = ["PLACE", "DefaultBody", "NewPrompt", "Prompt", "PromptBody", "PromptText", "Prompts"]

PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
"""Where a variable goes in a prompt's text."""
MAX_VERSION = 2**31 - 1

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class PromptText(Body):
    """A prompt's text and variables."""

    prompt: str | None = Field(None, description="With `{{ name }}` where a variable goes.")
    variables: list[Variable] | None = Field(None, max_length=64, fail_fast=True, validate_default=True)

    @field_validator("variables")
    @classmethod
    def _are_all(cls, given: list[str] | None, others: ValidationInfo) -> list[str] | None:
        missing = set(PLACE.findall(others.data.get("prompt") or "")) - set(given or [])
        if missing:
            raise ValueError(f"the prompt uses {min(missing)!r:.80}, which is not in `variables`")
        return given


class NewPrompt(PromptText):
    """A prompt to keep."""


class PromptBody(PromptText):
    """A new version of a prompt."""

    prompt: str
    version: int = Field(ge=1, le=MAX_VERSION, description="The prompt's latest version until now.")
    set_as_default: bool = Field(True, description="Mean this version where none is named.")


class DefaultBody(Body):
    """The version that is meant where none is named."""

    version: int = Field(ge=1, le=MAX_VERSION)


class Prompt(Reply):
    """A version of a prompt."""

    prompt_id: str
    prompt: str | None
    version: int
    variables: list[str]
    is_default: bool


class Prompts(Reply):
    """Several."""

    data: list[Prompt]
