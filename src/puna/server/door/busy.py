"""Sending requests away at once when there are too many, before anything else is done for them."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from puna.server.door.asgi import PREFIXES, client_of, is_watching
from puna.server.errors import ApiError, error_response
from puna.server.hosting.pool import ModelPool
from puna.server.settings import MAX_WATCHING

__all__ = ["ANSWERING", "BusyCheck", "CrowdCheck"]

ANSWERING = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/responses/compact",
    "/messages",
    "/embeddings",
)
"""Routes whose ``POST`` needs a place in a model's queue."""
_PATHS = {prefix + route: route for prefix in PREFIXES for route in ANSWERING}


class BusyCheck:
    """Refuses what could not even wait: reading a body and looking at it would take longer than to say so."""

    def __init__(self, app: ASGIApp, pool: ModelPool) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind.
            pool: the models.
        """
        self._app = app
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        route = _PATHS.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        try:
            if route is not None:
                self._pool.check_room(client_of(scope))
        except ApiError as error:
            scope["puna.route"] = route
            await _send_away(scope, receive, send, error)
            return
        await self._app(scope, receive, send)


class CrowdCheck:
    """Lets in so many requests at once, whatever they want, and beside them a few that ask how it is."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind.
            max_requests: at once.
        """
        self._app = app
        self._max_requests = max_requests
        self._n_open = {True: 0, False: 0}  # those that ask how the server is, and the others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watches = is_watching(scope)
        if self._n_open[watches] >= (MAX_WATCHING if watches else self._max_requests):
            error = ApiError(
                429,
                f"the server is busy: {self._n_open[watches]} requests are open already; try again in 1 s",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1", "Connection": "close"},
            )
            await error_response(error, scope)(scope, receive, send)
            return
        self._n_open[watches] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._n_open[watches] -= 1


async def _send_away(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Answer with an error behind the whole body, so that the connection can be used on."""
    try:
        while (await receive()).get("more_body"):
            pass
    except ApiError as unreadable:  # it is too large, or comes too slowly
        error = unreadable
    await error_response(error, scope)(scope, receive, send)
