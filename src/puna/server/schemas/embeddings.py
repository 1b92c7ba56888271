"""Embeddings, as OpenAI's API has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from puna.server.schemas.base import ModelName, Reply
from puna.server.schemas.completions import Ids

__all__ = ["Embedding", "EmbeddingUsage", "Embeddings", "EmbeddingsBody"]

MAX_INPUTS = 2048


class EmbeddingsBody(ModelName):
    """Texts to turn into vectors."""

    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    ) = Field(description="A text or its token ids, or a list of such.")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="Only the model's own.")
    user: str | None = Field(None, max_length=512, description="Taken and without effect.")

    def inputs(self) -> list[str] | list[list[int]]:
        """What to embed, one after the other."""
        given = self.input
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [given]
        return given


class Embedding(Reply):
    """One vector, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Reply):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Reply):
    """All vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
