"""Runs the server: a socket, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
import uvloop

from puna.errors import ConfigError
from puna.models.local import LocalModel
from puna.server.app import create_app
from puna.server.background import Background
from puna.server.door.files import BURST, with_files
from puna.server.door.protocol import Connections, HttpProtocol
from puna.server.errors import ApiError
from puna.server.hosting.hosted import HostedModel, host_local
from puna.server.hosting.pool import ModelPool
from puna.server.ids import new_id
from puna.server.services import Services
from puna.server.settings import ServerSettings
from puna.server.state.store import State
from puna.server.watch.libraries import libraries_logged
from puna.server.watch.log import log, log_in_thread
from puna.server.watch.metrics import Metrics
from puna.server.watch.traces import tracing

__all__ = ["Server", "bind", "host_all", "serve"]

_GRACE_S = 2.0  # for answers that were cut to be sent
_END_S = 15.0  # for all the rest; SQLite alone may wait 10 s for another process
_IDLE_S = 75  # longer than clients keep a connection, or they would use one that is just being closed
_LOOK_S = 0.1  # how soon a signal is seen
_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn, but answers that still run when time is up are sent as far as they got."""

    def __init__(self, services: Services, on_ready: Callable[[], object] = lambda: None) -> None:
        """Prepare to serve.

        Args:
            services: models, settings and metrics.
            on_ready: is called once clients may come, and signals are looked for.
        """
        settings = services.settings
        config = uvicorn.Config(
            create_app(services),
            http=HttpProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # anyone could say there who they are
            backlog=BURST * settings.max_connections,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=int(settings.drain_s + _GRACE_S) + 1,
        )
        super().__init__(config)
        self.server_state = Connections(settings)
        self._services = services
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Let clients come, and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let answers finish, cut those that take longer than the drain time."""
        log("draining", seconds=self._services.settings.drain_s)
        cut = asyncio.create_task(self._cut_later())
        ending = asyncio.create_task(super().shutdown(sockets))
        try:
            # Once the application ends, which may take long, uvicorn looks for no second Ctrl-C any more.
            while not self.force_exit and not ending.done():
                await asyncio.wait([ending], timeout=_LOOK_S)
            if not self.force_exit:
                ending.result()
        finally:
            cut.cancel()
            ending.cancel()

    def watch_end(self, on_stuck: Callable[[], object]) -> None:
        """Wait for the signal to end, then for the end of the process, and end it where that takes too long.

        To be run in a thread that the process takes along when it ends. The thread looks for itself whether a
        signal has come: the event loop may be what hangs, and a signal must not wait for a lock.

        Args:
            on_stuck: is to end the process.
        """
        while not self.should_exit:
            time.sleep(_LOOK_S)
        until_s = time.monotonic() + self._services.settings.drain_s + _GRACE_S + _END_S
        while not self.force_exit and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        if self.force_exit:
            time.sleep(_GRACE_S)
        on_stuck()

    async def _cut_later(self) -> None:
        await asyncio.sleep(self._services.settings.drain_s)
        self._services.background.end_drain()
        await self._services.pool.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Turn the usual signals into an orderly end, and end there: uvicorn would raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = _SIGNALS
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is where `nohup` has started this
            signals = (*_SIGNALS, signal.SIGHUP)
        before = {sig: signal.signal(sig, self.handle_exit) for sig in signals}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def bind(settings: ServerSettings) -> socket.socket:
    """Take the address; nobody is listened to yet.

    Raises:
        ConfigError: it is taken already, or is none of this machine's.
    """
    host = settings.host.strip("[]")
    try:
        found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another "
            "--port, or 0 for any that is free"
        ) from error
    return listener


def host_all(
    models: Sequence[tuple[str, LocalModel]],
    settings: ServerSettings,
    memory_bytes: int,
    draft: LocalModel | None = None,
) -> list[HostedModel]:
    """Describe the models to serve.

    Args:
        models: how each was written, and what was found.
        settings: context, threads and format.
        memory_bytes: what all together may take.
        draft: guesses for all of them, and must have their vocabulary.

    Raises:
        ConfigError: two have the same name, or context or threads are out of range.
    """
    hosted: dict[str, HostedModel] = {}
    paths: dict[str, Path] = {}
    for written, local in models:
        known = hosted.setdefault(local.name, host_local(local, settings, memory_bytes, draft))
        path = local.checkpoint.path.resolve()  # a folder may be written in two ways
        if paths.setdefault(local.name, path) != path:
            raise ConfigError(f"two models have the name {local.name!r}; rename the folder of one")
        known.spellings |= {written, written.removeprefix("hf:")}
    return list(hosted.values())


def serve(
    models: Sequence[HostedModel],
    settings: ServerSettings,
    memory_bytes: int,
    on_ready: Callable[[int, str], None],
    on_stuck: Callable[[], object],
) -> bool:
    """Serve until a signal says to stop.

    A model that is alone is loaded at once, several are on first use.

    Args:
        models: what to serve, at least one.
        settings: how.
        memory_bytes: what all models together may take.
        on_ready: is told the port and the server's id once clients may come.
        on_stuck: is to end the process; called, from another thread, where something hangs at the end.

    Returns:
        Whether all has ended. False: a load still runs, which nothing can interrupt, and Python would wait
        for it at the end of the process.

    Raises:
        ConfigError: the address cannot be had.
        KeyboardInterrupt: Ctrl-C, before clients may come; the only model may still be loading.
        PunaError: the only model cannot be loaded.
    """
    with log_in_thread(), libraries_logged():
        settings = with_files(settings)
        pool = ModelPool(models, settings, memory_bytes)
        with (
            bind(settings) as listener,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_serve(pool, settings, listener, on_ready, on_stuck))
    return not pool.is_loading


async def _serve(
    pool: ModelPool,
    settings: ServerSettings,
    listener: socket.socket,
    on_ready: Callable[[int, str], None],
    on_stuck: Callable[[], object],
) -> None:
    state, instance = State(settings), new_id("srv_")
    with tracing(settings.traces_url, instance) as tracer:
        services = Services(
            settings=settings,
            pool=pool,
            metrics=Metrics(),
            tracer=tracer,
            state=state,
            background=Background(state, settings.max_waiting),
            instance=instance,
        )
        server = Server(services, lambda: on_ready(listener.getsockname()[1], instance))
        threading.Thread(target=server.watch_end, args=(on_stuck,), name="puna-end", daemon=True).start()
        # What is there now stays; looking through all of it for garbage would hold up clients for 0.1 s.
        gc.collect()
        gc.freeze()
        if len(pool.models) == 1:
            await _load(pool, *pool.models)
        await server.serve([listener])


async def _load(pool: ModelPool, name: str) -> None:
    try:
        async with pool.use(name):
            pass
    except ApiError as error:
        raise error.__cause__ or ConfigError(error.message) from error
