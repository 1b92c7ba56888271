"""All models that the server offers: found by any name, loaded on first use, unloaded when idle."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

from puna._native import BLOCK_TOKENS
from puna.errors import UnknownModelError
from puna.llama import Llama
from puna.models.catalogue import resolve
from puna.server.errors import ApiError, shutting_down
from puna.server.hosting.admission import Admission
from puna.server.hosting.hosted import HostedModel, Loaded
from puna.server.settings import ServerSettings
from puna.server.watch.log import log

__all__ = ["ModelPool"]

_NICENESS = 5  # of what computes: clients are heard at once, and where nothing else runs it costs nothing


class ModelPool:
    """The models of a server. To be used from one event loop.

    Attributes:
        models: by id, in the order in which they were given.
        memory_bytes: what all in memory together may take.
    """

    def __init__(self, models: Iterable[HostedModel], settings: ServerSettings, memory_bytes: int) -> None:
        """Offer models; none is loaded yet.

        Args:
            models: those that clients may name.
            settings: limits and keep-alive.
            memory_bytes: what all in memory together may take.
        """
        self.models = {model.id: model for model in models}
        self.memory_bytes = memory_bytes
        self._settings = settings
        self._taken_bytes = 0  # by what is in memory, comes or leaves
        self._leaving_bytes = 0  # of them, by what leaves
        self._changed = asyncio.Event()  # there may be room
        self._one_load = asyncio.Lock()  # several at once would only hold each other up
        self._loader = ThreadPoolExecutor(1, "puna-load", initializer=_step_back)
        self._load: Future[Llama] | None = None  # the latest
        self._timed: set[HostedModel] = set()  # a timer looks after each
        self._expiring: set[asyncio.Task[bool]] = set()
        self._is_closed = False

    @property
    def is_loading(self) -> bool:
        """Whether a model is just being loaded, in a thread that nothing can interrupt."""
        return self._load is not None and not self._load.done()

    def find(self, name: str) -> HostedModel:
        """The model of that name, however it is written; nothing is looked for on disk.

        Args:
            name: an id, a spelling that the operator used, or any name of the catalogue for it.

        Raises:
            ApiError: 404, the server offers no such model.
        """
        for model in self.models.values():
            if name == model.id or name in model.spellings:
                return model
        try:
            row = resolve(name)
        except UnknownModelError:
            row = None
        if row is None or row.name not in self.models:
            raise ApiError(
                404,
                f"Model '{name:.200}' not found. Use 'client.models.list()' to list available Models.",
                code="model_not_found",
                param="model",
            )
        return self.models[row.name]

    def name_or_only(self, name: str | None) -> str:
        """The name that a request has, or where it may have none, that of the only model.

        Raises:
            ApiError: 400, it has none, and there are several models.
        """
        if name is not None:
            return name
        if len(self.models) != 1:
            raise ApiError(
                400,
                f"`model` may be left out where one model is served, and here are {len(self.models)}; send "
                "the name of one of `/v1/models`",
                param="model",
            )
        return next(iter(self.models))

    def check_room(self, client: str) -> None:
        """Refuse what could not even wait, whichever model it wants.

        Args:
            client: who asks.

        Raises:
            ApiError: 429, every model has as many answers as may run and wait.
        """
        admissions = [model.loaded.admission for model in self.models.values() if model.loaded is not None]
        if len(admissions) == len(self.models) and all(each.is_full(client) for each in admissions):
            admissions[0].check(client, 1)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Loaded]:
        """Have a model in memory during an ``async with`` block; it is loaded first where it is not.

        Raises:
            ApiError: 404, there is no such model; 429, too many wait for it; 503, it cannot be loaded, or
                not soon, or the server is shutting down.
        """
        model = self.find(name)
        if model.loaded is None and model.n_users > self._settings.max_waiting:
            raise ApiError(
                429, "the model is being loaded and too many wait for it", headers={"Retry-After": "5"}
            )
        model.n_users += 1
        try:
            if model.loaded is not None and model.loaded.llama.engine.is_closed:
                await self._take_out(model)  # its engine failed for good; whoever comes now has a new one
            yield model.loaded or await self._arrival(model)
        finally:
            model.n_users -= 1
            model.used_s = time.monotonic()
            if not model.n_users:
                self._on_idle(model)

    async def unload(self, model: HostedModel) -> bool:
        """Take a model out of memory.

        Args:
            model: one of this pool's.

        Returns:
            False where it is in use, and so stays.
        """
        if model.n_users:
            return False
        await self._take_out(model)
        return True

    async def close(self) -> None:
        """End everything that runs, each answer with what it has so far, and free all memory.

        Who waits for a model is told that the server is shutting down. A load that runs is not waited for;
        what it brings is freed when it comes.
        """
        self._is_closed = True
        closing = []
        for model in self.models.values():
            if model.arriving is not None:
                model.arriving.cancel()
            loaded, model.loaded = model.loaded, None
            if loaded is not None:
                loaded.admission.close()
                closing.append(asyncio.get_running_loop().run_in_executor(None, loaded.llama.close))
        self._loader.shutdown(wait=False)
        await asyncio.gather(*closing)

    async def _arrival(self, model: HostedModel) -> Loaded:
        if self._is_closed:
            raise shutting_down()
        if model.arriving is None:
            # A task of its own: whoever began it may leave, and the others still want the model.
            model.arriving = asyncio.create_task(self._bring(model))
            # Its error is told to those who wait; there may be none.
            model.arriving.add_done_callback(lambda task: task.cancelled() or task.exception())
        arriving = model.arriving
        await asyncio.wait([arriving], timeout=self._settings.timeout_s)
        if not arriving.done():
            raise ApiError(
                503,
                f"model '{model.id}' was not in memory within {self._settings.timeout_s:g} s, since others "
                "are in use there; try again later",
                code="model_not_ready",
                headers={"Retry-After": "5"},
            )
        if arriving.cancelled():  # by `close`
            raise shutting_down()
        return arriving.result()

    async def _bring(self, model: HostedModel) -> Loaded:
        try:
            await self._take_room(model)
            async with self._one_load:
                started_s = time.monotonic()
                model.loaded = self._loaded(await self._read(model))
                log("loaded", model=model.id, seconds=round(time.monotonic() - started_s, 3))
        finally:
            model.arriving = None
        if not model.n_users:  # they went away meanwhile
            self._on_idle(model)
        return model.loaded

    async def _take_out(self, model: HostedModel) -> None:
        loaded, model.loaded = model.loaded, None
        if loaded is not None:
            self._leaving_bytes += model.need_bytes
            try:
                await asyncio.to_thread(loaded.llama.close)
            finally:
                self._leaving_bytes -= model.need_bytes
                self._give_back(model)
            log("unloaded", model=model.id)

    async def _take_room(self, model: HostedModel) -> None:
        """Set memory aside for a model; wait for it where unloading all that is idle would not do.

        Of what is idle the longest unused goes first, and none where enough is just being freed.
        """
        if model.need_bytes > self.memory_bytes:
            raise ApiError(
                503,
                f"model '{model.id}' needs {model.need_bytes / 1e9:.1f} GB of memory and the server may use "
                f"{self.memory_bytes / 1e9:.1f} GB",
                code="model_too_large",
            )
        while (lacking := self._taken_bytes + model.need_bytes - self.memory_bytes) > 0:
            idle = [m for m in self.models.values() if m.loaded is not None and not m.n_users]
            leaving = self._leaving_bytes
            if leaving < lacking <= leaving + sum(m.need_bytes for m in idle):
                await self.unload(min(idle, key=lambda m: m.used_s))
            elif not model.n_users:
                raise ApiError(503, f"nobody waits for model '{model.id}' any more")
            else:
                self._changed.clear()
                await self._changed.wait()
        self._taken_bytes += model.need_bytes

    def _give_back(self, model: HostedModel) -> None:
        self._taken_bytes -= model.need_bytes
        self._changed.set()

    async def _read(self, model: HostedModel) -> Llama:
        load = self._load = self._loader.submit(model.load)
        try:
            return await asyncio.wrap_future(load)
        except asyncio.CancelledError:
            load.add_done_callback(_close_late)
            raise
        except Exception as error:
            self._give_back(model)
            log("load_failed", model=model.id, kind=type(error).__name__, error=str(error))
            raise ApiError(
                503,
                f"model '{model.id}' could not be loaded; the server's log has the reason",
                code="model_load_failed",
            ) from error

    def _loaded(self, llama: Llama) -> Loaded:
        admission = Admission(
            llama.engine.cache_tokens,
            block_tokens=BLOCK_TOKENS,
            max_running=self._settings.max_running,
            max_waiting=self._settings.max_waiting,
            max_wait_s=self._settings.max_wait_s,
        )
        return Loaded(llama, admission)

    def _on_idle(self, model: HostedModel) -> None:
        self._changed.set()
        if model not in self._timed:
            self._expire(model)

    def _expire(self, model: HostedModel) -> None:
        """Unload a model that was idle for long enough, or look again when it may have been."""
        self._timed.discard(model)
        keep_alive_s = self._settings.keep_alive_s
        if keep_alive_s is None or model.loaded is None or model.n_users:
            return
        left_s = model.used_s + keep_alive_s - time.monotonic()
        if left_s > 0:
            self._timed.add(model)
            asyncio.get_running_loop().call_later(left_s, self._expire, model)
            return
        task = asyncio.create_task(self.unload(model))
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)


def _close_late(load: Future[Llama]) -> None:
    """Free what a load has brought that nobody waits for any more."""
    if not load.cancelled() and load.exception() is None:
        load.result().close()


def _step_back() -> None:
    """Let other threads go first; those that this one starts inherit it, the engine's too."""
    if sys.platform == "linux":  # elsewhere it would concern the whole process
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
