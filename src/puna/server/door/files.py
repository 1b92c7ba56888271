"""How many files the system lets this process open: every connection is one."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace

from puna.server.settings import ServerSettings
from puna.server.watch.log import log

__all__ = ["with_files"]

_OTHER_FILES = 256  # databases, models, threads' pipes
_MAX_BURST = 2048  # connections that the event loop takes before it looks at any of them
_MIN_CONNECTIONS = 16


def with_files(settings: ServerSettings) -> ServerSettings:
    """Have the system allow as many open files as connections need, or else allow fewer connections.

    Without a file for it a connection is not taken at all, and none is for a second, not even for health.

    Args:
        settings: what the operator wants.

    Returns:
        The same with as many connections as there are files for; the log says where those are fewer.
    """
    if sys.platform == "win32":
        return settings
    import resource

    wanted = settings.max_connections + _OTHER_FILES + _MAX_BURST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a limit of its own below "none"
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = settings.max_connections if soft == resource.RLIM_INFINITY else soft - _OTHER_FILES
    if n >= settings.max_connections:
        return settings
    n = max(n, _MIN_CONNECTIONS)
    log("few_files", files=soft, connections=n)
    return replace(settings, max_connections=n)
