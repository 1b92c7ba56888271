"""Bodies are JSON and nothing that merely passes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from puna.errors import CheckpointError
from puna.models.files import parse_json_object
from puna.server.errors import ApiError

__all__ = ["StrictRoute"]

_QUICK_BYTES = 65_536  # are parsed in a millisecond or two
_MAX_KEYS = 4096  # of one object; unknown ones are told one by one


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body; an error where it is nested deeply, has a key twice or too many, or is not an object."""
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                if len(body) <= _QUICK_BYTES:
                    self._json = _parsed(body)
                else:
                    self._json = await asyncio.to_thread(_parsed, body)
            except (CheckpointError, UnicodeDecodeError) as error:
                raise ApiError(400, str(error)[:500], code="invalid_json") from error
        return self._json


def _parsed(body: bytes) -> dict[str, Any]:
    return parse_json_object(body.decode("utf-8"), "the body", _MAX_KEYS)


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly; for ``APIRouter(route_class=...)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict
