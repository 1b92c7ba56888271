"""How many files the system lets this process open: every connection is one."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace

from puna.server.settings import MAX_WATCHING, ServerSettings
from puna.server.watch.log import log

__all__ = ["BURST", "with_files"]

BURST = 2
"""For each connection that may be open: those that the event loop takes before it closes what is too many."""
_OTHER_FILES = 256  # databases, models, threads' pipes
_MIN_CONNECTIONS = 2 * MAX_WATCHING


def with_files(settings: ServerSettings) -> ServerSettings:
    """Have the system allow as many open files as connections need, or else allow fewer connections.

    Without a file for it a connection is not taken at all, and none is for a second, not even for health.

    Args:
        settings: what the operator wants.

    Returns:
        The same with as many connections as there are files for, and fewer requests than those; the log says
        where they are fewer than wanted.
    """
    if sys.platform == "win32":
        return settings
    import resource

    wanted = _OTHER_FILES + (1 + BURST) * settings.max_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a limit of its own below "none"
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings
    n = max((soft - _OTHER_FILES) // (1 + BURST), min(_MIN_CONNECTIONS, settings.max_connections))
    n_requests = min(settings.max_requests, n - MAX_WATCHING)
    log("few_files", files=soft, connections=n, requests=n_requests)
    return replace(settings, max_connections=n, max_requests=n_requests)
