"""Requests for answers go straight to the functions of their routes.

FastAPI's way there, through routers, exit stacks and dependencies, took 0.2 ms, a tenth of what the server
added to the time to the first token. Routes are written for FastAPI all the same: it describes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from puna.server.door.asgi import header
from puna.server.errors import ApiError, respond_to
from puna.server.schemas.base import Body
from puna.server.wire.strict import StrictRequest

__all__ = ["DirectRoutes"]

_Source = Callable[[Request], Awaitable[object]]


class DirectRoutes:
    """Serves the ``POST`` of some routes of an app in its place."""

    def __init__(self, app: FastAPI, routes: Mapping[str, APIRoute]) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind.
            routes: by path. What their functions take is a request, a body and dependencies, which are async
                functions of the request.
        """
        self._app = app
        self._routes = {path: (route, _sources(route)) for path, route in routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        if not is_post or scope["path"] not in self._routes:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        scope["route"], sources = self._routes[scope["path"]]
        request = StrictRequest(scope, receive)
        try:
            arguments = {name: await source(request) for name, source in sources.items()}
            response: Response = await scope["route"].endpoint(**arguments)
        except Exception as error:
            response = await respond_to(request, error)
        await response(scope, receive, send)


def _sources(route: APIRoute) -> dict[str, _Source]:
    """Where each argument of a route's function comes from."""
    parameters = inspect.signature(route.endpoint, eval_str=True).parameters
    return {name: _source(parameter.annotation) for name, parameter in parameters.items()}


def _source(annotation: Any) -> _Source:
    if annotation is Request:
        return _itself
    if isinstance(annotation, type) and issubclass(annotation, Body):
        return partial(_body, annotation)
    (depends,) = annotation.__metadata__  # `Annotated[..., Depends(...)]`
    source: _Source = depends.dependency
    return source


async def _itself(request: Request) -> Request:
    return request


async def _body(model: type[Body], request: Request) -> Body:
    if not _is_json(header(request.scope, b"content-type") or ""):
        raise ApiError(400, "the body must be JSON; send it with the header `Content-Type: application/json`")
    given = await request.json()
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(wrong, body=given) from error


def _is_json(content_type: str) -> bool:
    """Pages can send other types to a server that is not theirs, without asking it."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
