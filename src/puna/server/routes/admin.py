"""What is in memory and what runs, and taking a model out of memory."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response

import puna
from puna.server.errors import ApiError
from puna.server.hosting.hosted import HostedModel
from puna.server.schemas.models import ModelState, ServerState, Unloaded
from puna.server.services import Services, TheServices
from puna.server.wire.reply import json_reply

__all__ = ["get_state", "router", "unload_model"]

_NO_LOAD = dict.fromkeys(("running", "waiting", "refused", "cache_tokens", "cache_tokens_reserved"), 0)

router = APIRouter(prefix="/admin", tags=["admin"])


@router.get("/state", response_model=ServerState)
async def get_state(services: TheServices) -> Response:
    """What the server is doing."""
    return json_reply(
        ServerState(
            version=puna.__version__,
            instance=services.instance,
            uptime_s=time.monotonic() - services.started_s,
            memory_bytes=services.pool.memory_bytes,
            completion_tokens=services.metrics.completion_tokens,
            models=[_state(services, model) for model in services.pool.models.values()],
        )
    )


@router.post("/models/{name:path}/unload", response_model=Unloaded)
async def unload_model(name: str, services: TheServices) -> Response:
    """Take a model out of memory; it comes back when it is asked for."""
    model = services.pool.find(name)
    if not await services.pool.unload(model):
        raise ApiError(409, f"model '{model.id}' is in use; try again when its answers are through")
    return json_reply(Unloaded(id=model.id, object="model.unloaded"))


def _state(services: Services, model: HostedModel) -> ModelState:
    loaded = model.loaded
    idle_s = time.monotonic() - model.used_s if loaded and not model.n_users else None
    keep_alive_s = services.settings.keep_alive_s
    return ModelState(
        id=model.id,
        is_loaded=loaded is not None,
        memory_bytes=model.need_bytes,
        context_tokens=model.context_tokens,
        idle_s=idle_s,
        unloads_in_s=None if idle_s is None or keep_alive_s is None else max(0.0, keep_alive_s - idle_s),
        **(loaded.load() if loaded else _NO_LOAD),
    )
