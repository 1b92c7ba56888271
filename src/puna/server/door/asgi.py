"""What the parts of the door share."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from puna.server.errors import ApiError, error_response

__all__ = ["PREFIXES", "client_of", "header", "is_health", "is_watching", "refuse"]

PREFIXES = ("/v1", "/v1/openai/v1")
"""Under which all routes stand."""

_HEALTH = tuple(f"{prefix}/health" for prefix in PREFIXES)
_READING = ("GET", "HEAD")
_WATCHING = (*_HEALTH, "/metrics", *(f"{prefix}/admin/state" for prefix in PREFIXES))


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, whose name is in small letters; None where there is none.

    Raises:
        ApiError: 400, it is given twice, and so could mean one thing here and another elsewhere.
    """
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            if found is not None:
                raise ApiError(400, f"the header {name.decode()} is given more than once; send it once")
            found = value
    return None if found is None else found.decode("latin-1")


def client_of(scope: Scope) -> str:
    """Who asks: the name of the key, or the address where no key is needed."""
    name: str | None = scope.get("puna.client")
    return name or (scope["client"][0] if scope.get("client") else "local")


def is_health(scope: Scope) -> bool:
    """Whether a request asks for nothing but a sign of life."""
    return scope["path"] in _HEALTH and scope["method"] in _READING


def is_watching(scope: Scope) -> bool:
    """Whether a request asks how the server is, which a full one tells too."""
    return scope["path"] in _WATCHING and scope["method"] in _READING


async def refuse(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Answer with an error; the body stays unread, so the connection ends."""
    response = error_response(error, scope)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
