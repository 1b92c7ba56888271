"""Bodies are JSON and nothing that merely passes for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from puna.errors import CheckpointError
from puna.models.files import parse_json_object
from puna.server.errors import ApiError

__all__ = ["StrictRoute"]


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body; an error where it is nested deeply, has a key twice, or is not an object."""
        if not hasattr(self, "_json"):
            try:
                self._json = parse_json_object((await self.body()).decode("utf-8"), "the body")
            except (CheckpointError, UnicodeDecodeError) as error:
                raise ApiError(400, str(error)[:500], code="invalid_json") from error
        return self._json


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly; for ``APIRouter(route_class=...)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict
