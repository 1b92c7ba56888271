"""All models that the server offers: found by any name, loaded on first use, unloaded when idle."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from puna._native import BLOCK_TOKENS
from puna.errors import UnknownModelError
from puna.llama import Llama
from puna.models.catalogue import resolve
from puna.server.errors import ApiError
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
        self._loading = asyncio.Lock()  # one at a time, or two would find the same room
        self._changed = asyncio.Event()
        self._expiring: set[asyncio.Future[bool]] = set()
        self._loader = ThreadPoolExecutor(1, "puna-load", initializer=_step_back)

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
            row = resolve(name.removeprefix("hf:"))
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
                not soon.
        """
        model = self.find(name)
        if model.loaded is None and model.n_users > self._settings.max_waiting:
            raise ApiError(
                429, "the model is being loaded and too many wait for it", headers={"Retry-After": "5"}
            )
        model.n_users += 1
        try:
            loaded = model.loaded or await self._load(model)
            yield loaded
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
        loaded, model.loaded = model.loaded, None
        if loaded is not None:
            await asyncio.to_thread(loaded.llama.close)
            log("unloaded", model=model.id)
            self._changed.set()
        return True

    async def close(self) -> None:
        """End everything that runs, each answer with what it has so far, and free all memory."""
        for model in self._in_memory():
            loaded, model.loaded = model.loaded, None
            if loaded is not None:
                loaded.admission.close()
                await asyncio.to_thread(loaded.llama.close)
        self._loader.shutdown(wait=False)

    async def _load(self, model: HostedModel) -> Loaded:
        # A task of its own: whoever began it may leave, and the others still want the model.
        if model.arriving is None:
            model.arriving = asyncio.create_task(self._bring(model))
            model.arriving.add_done_callback(partial(_arrived, model))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await asyncio.shield(model.arriving)
        except TimeoutError:
            raise ApiError(
                503,
                f"model '{model.id}' was not in memory within {self._settings.timeout_s:g} s, since others "
                "are in use there; try again later",
                code="model_not_ready",
                headers={"Retry-After": "5"},
            ) from None

    async def _bring(self, model: HostedModel) -> Loaded:
        async with self._loading:
            await self._make_room(model)
            started_s = time.monotonic()
            try:
                llama = await asyncio.get_running_loop().run_in_executor(self._loader, model.load)
            except Exception as error:
                log("load_failed", model=model.id, kind=type(error).__name__, error=str(error))
                raise ApiError(
                    503,
                    f"model '{model.id}' could not be loaded; the server's log has the reason",
                    code="model_load_failed",
                ) from error
            model.loaded = self._loaded(llama)
            log("loaded", model=model.id, seconds=round(time.monotonic() - started_s, 3))
            if not model.n_users:  # they went away meanwhile
                self._on_idle(model)
            return model.loaded

    def _loaded(self, llama: Llama) -> Loaded:
        admission = Admission(
            llama.engine.cache_tokens,
            block_tokens=BLOCK_TOKENS,
            max_running=self._settings.max_running,
            max_waiting=self._settings.max_waiting,
            max_wait_s=self._settings.max_wait_s,
        )
        return Loaded(llama, admission)

    async def _make_room(self, model: HostedModel) -> None:
        """Unload what is idle, the longest unused first, until a model fits; wait where nothing is idle."""
        if model.need_bytes > self.memory_bytes:
            raise ApiError(
                503,
                f"model '{model.id}' needs {model.need_bytes / 1e9:.1f} GB of memory and the server may use "
                f"{self.memory_bytes / 1e9:.1f} GB",
                code="model_too_large",
            )
        while sum(m.need_bytes for m in self._in_memory()) + model.need_bytes > self.memory_bytes:
            idle = [m for m in self._in_memory() if not m.n_users]
            if idle:
                await self.unload(min(idle, key=lambda m: m.used_s))
            elif not model.n_users:
                raise ApiError(503, f"nobody waits for model '{model.id}' any more")
            else:
                self._changed.clear()
                await self._changed.wait()

    def _in_memory(self) -> list[HostedModel]:
        return [model for model in self.models.values() if model.loaded is not None]

    def _on_idle(self, model: HostedModel) -> None:
        self._changed.set()
        keep_alive_s = self._settings.keep_alive_s
        if keep_alive_s is not None and model.loaded is not None:
            asyncio.get_running_loop().call_later(keep_alive_s, self._expire, model, model.used_s)

    def _expire(self, model: HostedModel, used_s: float) -> None:
        if model.used_s == used_s and not model.n_users:
            task = asyncio.ensure_future(self.unload(model))
            self._expiring.add(task)
            task.add_done_callback(self._expiring.discard)


def _arrived(model: HostedModel, task: asyncio.Task[Loaded]) -> None:
    model.arriving = None
    if not task.cancelled():
        task.exception()  # told to those who wait; there may be none


def _step_back() -> None:
    """Let other threads go first; those that this one starts inherit it, the engine's too."""
    if sys.platform == "linux":  # elsewhere it would concern the whole process
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
