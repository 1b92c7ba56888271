"""A server in a thread of the test's own process."""

from __future__ import annotations

import faulthandler
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from opentelemetry.trace import Tracer

from puna.server.background import Background
from puna.server.hosting.hosted import HostedModel
from puna.server.hosting.pool import ModelPool
from puna.server.run import Server, bind
from puna.server.services import Services
from puna.server.settings import ServerSettings
from puna.server.state.store import State
from puna.server.watch.libraries import libraries_logged
from puna.server.watch.metrics import Metrics
from puna.server.watch.traces import tracing

MEMORY_BYTES = 10**9
_END_S = 60.0  # what the end may take beside the drain


@dataclass(frozen=True)
class Live:
    """A running server.

    Attributes:
        port: where it listens.
        services: what it is made of.
        http: a client of it.
    """

    port: int
    services: Services
    http: httpx2.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def running(
    models: Sequence[HostedModel], memory_bytes: int = MEMORY_BYTES, **settings: object
) -> Iterator[Live]:
    """Run a server for the length of a ``with`` block."""
    configured = ServerSettings(port=0, **settings)  # type: ignore[arg-type]
    with (
        libraries_logged(),
        tempfile.TemporaryDirectory() as folder,
        tracing(configured.traces_url, "srv_test") as tracer,
    ):
        yield from _running(models, memory_bytes, Path(folder), configured, tracer)


def _running(
    models: Sequence[HostedModel], memory_bytes: int, folder: Path, configured: ServerSettings, tracer: Tracer
) -> Iterator[Live]:
    state = State(configured, folder / "state" / "puna.db")
    services = Services(
        settings=configured,
        pool=ModelPool(models, configured, memory_bytes),
        metrics=Metrics(),
        tracer=tracer,
        state=state,
        background=Background(state, configured.max_waiting),
    )
    server = Server(services)
    listener = bind(configured)
    listener.listen()
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: server.run([listener]), daemon=True)
    thread.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield Live(port, services, http)
    finally:
        server.should_exit = True
        thread.join(configured.drain_s + _END_S)
        listener.close()
        if thread.is_alive():
            faulthandler.dump_traceback(sys.__stderr__)
            pytest.fail("the server does not end; all threads are above")
