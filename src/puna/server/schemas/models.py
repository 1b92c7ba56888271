"""Models, as OpenAI's and Llama Stack's APIs have them, and what is in memory."""

from __future__ import annotations

from typing import Any, Literal

from puna.server.schemas.base import Reply

__all__ = ["Model", "ModelMetadata", "ModelState", "Models", "ServerState", "Unloaded"]


class ModelMetadata(Reply):
    """What Llama Stack's clients read about a model."""

    model_type: Literal["llm"]
    provider_id: Literal["puna"]
    provider_resource_id: str
    context_length: int


class Model(Reply):
    """A model that requests may name.

    Llama Stack's old clients read what is behind `custom_metadata`, Anthropic's what is behind `metadata`.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["puna"]
    custom_metadata: ModelMetadata
    type: Literal["model"]
    identifier: str
    model_type: Literal["llm"]
    provider_id: Literal["puna"]
    provider_resource_id: str
    metadata: dict[str, Any]
    display_name: str
    created_at: str


class Models(Reply):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class ModelState(Reply):
    """A model as the server has it now."""

    id: str
    is_loaded: bool
    memory_bytes: int
    context_tokens: int
    idle_s: float | None
    unloads_in_s: float | None
    running: int
    waiting: int
    refused: int
    cache_tokens: int
    cache_tokens_reserved: int


class ServerState(Reply):
    """What the server is doing."""

    version: str
    instance: str
    uptime_s: float
    memory_bytes: int
    completion_tokens: int
    models: list[ModelState]


class Unloaded(Reply):
    """A model was taken out of memory."""

    id: str
    object: Literal["model.unloaded"]
