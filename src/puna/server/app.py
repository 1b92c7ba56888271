"""Puts the server together: routes, and the door in front of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

import puna
from puna.server.door.asgi import PREFIXES
from puna.server.door.busy import ANSWERING, BusyCheck, CrowdCheck
from puna.server.door.hosts import HostCheck
from puna.server.door.keys import KeyCheck
from puna.server.door.sizes import SizeCheck
from puna.server.errors import install_handlers
from puna.server.routes import ROUTERS
from puna.server.routes.document import add_document
from puna.server.schemas.base import ErrorReply
from puna.server.services import Services
from puna.server.watch.load import LoadCollector
from puna.server.watch.requests import RequestLog
from puna.server.wire.direct import DirectRoutes

__all__ = ["create_app"]


def create_app(services: Services) -> ASGIApp:
    """The application.

    Args:
        services: models, settings and metrics; all is freed when the application ends.
    """
    return _door(_api(services), services)


def _api(services: Services) -> FastAPI:
    """All routes."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.background.close()
        services.reading.close()
        services.counting.close()
        await services.pool.close()
        await services.state.close()

    app = FastAPI(
        title="Puna",
        version=puna.__version__,
        lifespan=life,
        openapi_url=None,  # `add_document` does it
        responses={"4XX": {"model": ErrorReply}, "5XX": {"model": ErrorReply}},
    )
    app.state.services = services
    services.metrics.registry.register(LoadCollector(services.pool))
    for router in ROUTERS:
        for prefix in PREFIXES:
            app.include_router(router, prefix=prefix, include_in_schema=prefix == PREFIXES[0])
    app.add_api_route("/metrics", _metrics, include_in_schema=False)
    add_document(app)
    install_handlers(app)
    _prepare(app)
    return app


def _prepare(api: FastAPI) -> None:
    """Have all routes ready: FastAPI makes many at the first request, which others would have to wait for."""
    for route in api.routes:
        route.matches({"type": "http", "method": "GET", "path": "/"})


def _door(api: FastAPI, services: Services) -> ASGIApp:
    """What stands in front of the routes; the last one here is the first one passed."""
    settings = services.settings
    app: ASGIApp = DirectRoutes(api, _answering())
    app = BusyCheck(app, services.pool)
    app = SizeCheck(app, settings)
    if settings.keys:
        app = KeyCheck(app, settings.keys)
    if settings.allowed_origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],  # the official clients send a dozen of their own
            expose_headers=["x-request-id", "retry-after"],
        )
    app = HostCheck(app, settings)
    app = CrowdCheck(app, settings.max_requests)
    return RequestLog(app, services.metrics, services.tracer)


def _answering() -> dict[str, APIRoute]:
    """The routes that answer, by path."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    answering = [route for route in routes if route.path in ANSWERING and "POST" in (route.methods or ())]
    return {prefix + route.path: route for prefix in PREFIXES for route in answering}


async def _metrics(request: Request) -> Response:
    services: Services = request.app.state.services
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4")
