"""Texts to token ids and back."""

from __future__ import annotations

from pydantic import Field

from puna.server.schemas.base import ModelName, Reply
from puna.server.schemas.completions import Ids

__all__ = ["DetokenizeBody", "Detokenized", "TokenizeBody", "Tokenized"]


class TokenizeBody(ModelName):
    """A text; nothing in it counts as a special token."""

    prompt: str
    add_special_tokens: bool = Field(True, description="Put the opening token first where the model has one.")


class Tokenized(Reply):
    """Its ids."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeBody(ModelName):
    """Token ids."""

    tokens: Ids


class Detokenized(Reply):
    """Their text; special tokens are left out."""

    prompt: str
