"""What the server says about itself: health, version, providers, routes."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

import puna
from puna.server.errors import ApiError
from puna.server.schemas.system import (
    Health,
    Provider,
    ProviderHealth,
    Providers,
    Route,
    Routes,
    Version,
)
from puna.server.wire.reply import json_reply

__all__ = ["get_provider", "health", "list_providers", "list_routes", "router", "version"]

_KIND = "inline::puna"

router = APIRouter(tags=["system"])


@router.head("/health", include_in_schema=False)  # monitors ask so
@router.get("/health", response_model=Health)
async def health() -> Response:
    """Say that the server answers; the one route that needs no key."""
    return json_reply(Health(status="OK"))


@router.get("/version", response_model=Version)
async def version() -> Response:
    """Puna's version."""
    return json_reply(Version(version=puna.__version__))


@router.get("/providers", response_model=Providers)
async def list_providers() -> Response:
    """What stands behind the routes: Puna itself."""
    return json_reply(Providers(data=[_PROVIDER]))


@router.get("/providers/{name}", response_model=Provider)
async def get_provider(name: str) -> Response:
    """One provider."""
    if name != _PROVIDER.provider_id:
        raise ApiError(404, f"Provider '{name:.200}' not found. The only one is 'puna'.")
    return json_reply(_PROVIDER)


@router.get("/inspect/routes", response_model=Routes)
async def list_routes(request: Request) -> Response:
    """Every route and its method."""
    document = await asyncio.to_thread(request.app.openapi)  # the first time it takes a while
    paths: dict[str, dict[str, object]] = document["paths"]
    found = [
        Route(route=path, method=method.upper(), provider_types=[_KIND])
        for path, methods in paths.items()
        for method in methods
    ]
    return json_reply(Routes(data=found))


_PROVIDER = Provider(
    api="inference",
    provider_id="puna",
    provider_type=_KIND,
    config={},
    health=ProviderHealth(status="OK"),
)
