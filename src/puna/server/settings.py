"""What an operator may set."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field

from puna.errors import ConfigError

__all__ = ["MAX_WATCHING", "ApiKey", "ServerSettings", "is_loopback"]

MAX_WATCHING = 16
"""Requests at once that ask how the server is; they come beside the others, which a full server refuses."""
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")  # as it stands in a Host header
_MOST_DAYS = 10**6  # before there was time


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the server keeps it.

    Attributes:
        name: whose it is, for logs and for sharing fairly.
        digest: SHA-256 of the key; the key itself is kept nowhere.
    """

    name: str
    digest: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """How the server runs.

    Attributes:
        host: address to listen on.
        port: TCP port; 0 for any that is free.
        keys: who may come in; without any, everybody who can reach the address.
        is_insecure: listen beyond this machine without keys.
        allowed_hosts: names under which the server is reached, besides addresses and this machine's own.
        allowed_origins: web pages (``https://chat.example``) that may call it from a browser.
        format: see `puna.load`.
        threads: see `puna.load`.
        context: see `puna.load`.
        cache: see `puna.load`.
        speculation: see `puna.load`.
        keep_alive_s: unload a model that was idle for so long; None: only for want of memory.
        memory_bytes: what all models together may take; None: nine tenths of the machine's.
        max_running: answers of one model that are computed at once.
        max_waiting: answers of one model that may wait for their turn; more are refused.
        max_wait_s: an answer waits where its turn is expected within that time, and is refused where not.
        timeout_s: how long a request may take, waiting included.
        drain_s: how long running answers may go on once the server is told to stop.
        max_body_bytes: size of a request's body.
        max_requests: at once, whatever they want.
        max_connections: open at once, `MAX_WATCHING` more than requests at least; for a new one the one that
            is idle for the longest is closed.
        read_timeout_s: how long a client may take to send a request's headers, and its body.
        write_timeout_s: how long a client may read nothing of what it is sent.
        database_url: PostgreSQL database that keeps the state; None: SQLite, in the Puna folder.
        keep_state_days: how long stored completions and responses are kept; None: until they are deleted.
        max_state_bytes: how large the SQLite database may become.
        traces_url: collector of OpenTelemetry traces, OTLP over HTTP; None: there are none.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    keys: tuple[ApiKey, ...] = ()
    is_insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    format: str = "auto"
    threads: int | None = None
    context: int | None = None
    cache: str = "auto"
    speculation: str = "lookup"
    keep_alive_s: float | None = None
    memory_bytes: int | None = None
    max_running: int = 64
    max_waiting: int = 128
    max_wait_s: float = 30
    timeout_s: float = 600
    drain_s: float = 30
    max_body_bytes: int = 4 * 1024 * 1024
    max_requests: int = 512
    max_connections: int = 1024
    read_timeout_s: float = 20
    write_timeout_s: float = 60
    database_url: str | None = field(default=None, repr=False)  # it may hold a password
    keep_state_days: float | None = 30
    max_state_bytes: int = 4 * 1024**3
    traces_url: str | None = None

    def __post_init__(self) -> None:
        """Validate; ConfigError names what is out of range or not safe."""
        for name, low in (
            ("max_running", 1),
            ("max_waiting", 0),
            ("max_wait_s", 0),
            ("timeout_s", 0.01),
            ("drain_s", 0),
            ("max_body_bytes", 1),
            ("max_requests", 1),
            ("read_timeout_s", 0),
            ("write_timeout_s", 0),
            ("max_state_bytes", 1024**2),
        ):
            _check_number(name, getattr(self, name), low)
        if self.keep_alive_s is not None:
            _check_number("keep_alive_s", self.keep_alive_s, 0)
        least = self.max_requests + MAX_WATCHING
        if self.max_connections < least:
            raise ConfigError(
                f"`max_connections` must be at least {least}, {MAX_WATCHING} more than `max_requests`, got "
                f"{self.max_connections}; give more, or fewer requests"
            )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"`port` must be 0 to 65535, got {self.port}")
        if self.keep_state_days is not None and not 0 < self.keep_state_days <= _MOST_DAYS:
            raise ConfigError(
                f"`keep_state_days` must be over 0, and {_MOST_DAYS} at most, got {self.keep_state_days}"
            )
        if not self.keys and not self.is_insecure and not is_loopback(self.host):
            raise ConfigError(
                f"listening on {self.host} lets others on the network use this machine; make a key with "
                "`puna key NAME --file keys.txt` and give --keys keys.txt, or say --insecure"
            )
        if self.traces_url is not None and not self.traces_url.startswith(("http://", "https://")):
            raise ConfigError(f"traces go to http://HOST:PORT or https://HOST:PORT, got {self.traces_url!r}")
        for host in self.allowed_hosts:
            if not _HOST_NAME.fullmatch(host):
                raise ConfigError(
                    f"an allowed host is a name without scheme and port, my.host say, got {host!r:.200}; "
                    "addresses are always allowed"
                )
        for origin in self.allowed_origins:
            if "://" not in origin or origin.count("/") != 2:
                raise ConfigError(f"an origin is SCHEME://HOST[:PORT] and nothing behind it, got {origin!r}")


def _check_number(name: str, value: float, low: float) -> None:
    if not low <= value < math.inf:  # nor is it true of nan
        raise ConfigError(f"`{name}` must be a finite number, {low} or more, got {value}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
