"""``/models``."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from puna.server.hosting.hosted import HostedModel
from puna.server.schemas.models import Model, ModelMetadata, Models
from puna.server.services import TheServices
from puna.server.wire.reply import json_reply

__all__ = ["get_model", "list_models", "router"]

router = APIRouter(tags=["models"])


@router.get("/models", response_model=Models)
async def list_models(services: TheServices) -> Response:
    """The models that requests may name."""
    models = [_describe(model) for model in services.pool.models.values()]
    return json_reply(Models(object="list", data=models))


@router.get("/models/{name:path}", response_model=Model)
async def get_model(name: str, services: TheServices) -> Response:
    """One model, by any of its names."""
    return json_reply(_describe(services.pool.find(name)))


def _describe(model: HostedModel) -> Model:
    return Model(
        id=model.id,
        object="model",
        created=model.created,
        owned_by="puna",
        custom_metadata=ModelMetadata(
            model_type="llm",
            provider_id="puna",
            provider_resource_id=model.id,
            context_length=model.context_tokens,
        ),
        type="model",
        identifier=model.id,
        model_type="llm",
        provider_id="puna",
        provider_resource_id=model.id,
        metadata={"context_length": model.context_tokens},
        display_name=model.id,
        created_at=datetime.fromtimestamp(model.created, UTC).isoformat(),
    )
