"""API keys: made here, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from puna.errors import ConfigError
from puna.server.door.asgi import header, is_health, refuse
from puna.server.errors import ApiError
from puna.server.settings import ApiKey

__all__ = ["KeyCheck", "hashed", "key_line", "new_key", "read_keys"]

_PREFIX = "puna-"
_KEY_BYTES = 32
_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+sha256:(?P<digest>[0-9a-f]{64})")


def new_key() -> str:
    """A key that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def hashed(name: str, key: str) -> ApiKey:
    """A key as the server keeps it. SHA-256 is enough for what is random and 256 bits long."""
    return ApiKey(name, hashlib.sha256(key.encode()).digest())


def key_line(key: ApiKey) -> str:
    """A key as a file has it: ``NAME sha256:DIGEST``."""
    return f"{key.name} sha256:{key.digest.hex()}"


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys: a line each as `key_line` writes it, empty lines and those with # in front aside.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, others may write it, a line is none, or there is no key in it.
    """
    try:
        with path.open(encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            lines = opened.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the keys in {path} cannot be read: {error}") from error
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{path} may be written by others than its owner, who could let themselves in; "
            f"`chmod go-w {path}` mends it"
        )
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            # Not the line itself: it may be a key that somebody wrote there as it is.
            raise ConfigError(f"{path}:{number}: a key's line is NAME sha256:DIGEST; `puna key` writes one")
        keys.append(ApiKey(found["name"], bytes.fromhex(found["digest"])))
    if not keys:
        raise ConfigError(f"{path} has no keys; `puna key NAME --file {path}` makes one")
    return tuple(keys)


class KeyCheck:
    """Lets through requests with a key, and those for a sign of life."""

    def __init__(self, app: ASGIApp, keys: tuple[ApiKey, ...]) -> None:
        """Stand in front of an app.

        Args:
            app: what is behind; finds the key's name as ``puna.client`` in the scope.
            keys: those that are let in.
        """
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and not is_health(scope):
            try:
                scope["puna.client"] = self._name_of(scope)
            except ApiError as error:
                await refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)

    def _name_of(self, scope: Scope) -> str:
        scheme, _, given = (header(scope, b"authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            given = header(scope, b"x-api-key") or ""
        digest = hashlib.sha256(given.strip().encode("latin-1")).digest()
        found = None
        # Every key is looked at, so that the time tells nothing.
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key.name
        if found is None:
            raise ApiError(
                401,
                "a valid API key is needed: send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found
