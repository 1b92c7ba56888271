"""Host and Origin: whether a browser was led here by a page that has no business here.

A page can make its own name resolve to this machine (DNS rebinding) and then counts as same-origin; but its
requests still carry its name as `Host`. An address cannot be rebound, so addresses pass.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from puna.server.door.asgi import header, refuse
from puna.server.errors import ApiError
from puna.server.settings import ServerSettings

__all__ = ["HostCheck"]


class HostCheck:
    """Lets through requests to a name of this server, from no page or an allowed one."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind.
            settings: names and origins that are allowed.
        """
        self._app = app
        self._hosts = {"localhost", socket.gethostname().lower(), *map(str.lower, settings.allowed_hosts)}
        self._origins = {origin.lower() for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                await refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host = (header(scope, b"host") or "").lower()
        if not self._is_ours(host):
            raise ApiError(
                403,
                "this server is not known by the name in the Host header; its operator can allow the name "
                "with --allow-host",
                code="host_not_allowed",
            )
        origin = header(scope, b"origin")
        if origin is not None and origin.lower() not in self._origins:
            same = f"{scope['scheme']}://{host}"
            if origin.lower() != same:
                raise ApiError(
                    403,
                    "pages of this Origin may not use this server; its operator can allow them with "
                    "--allow-origin",
                    code="origin_not_allowed",
                )

    def _is_ours(self, host: str) -> bool:
        name = _name_in(host)
        return name is not None and (name in self._hosts or _is_address(name))


@lru_cache(maxsize=64)
def _name_in(host: str) -> str | None:
    """The name or address in a Host header, None where that is not well-formed."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    return None if parts.netloc != host or "@" in host else name


@lru_cache(maxsize=64)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
