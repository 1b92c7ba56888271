"""One model that the server offers, in memory or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from puna.constraints import JsonSchema
from puna.engine.native import threads_for
from puna.errors import ConstraintError
from puna.llama import Llama
from puna.models.fit import context_for, memory
from puna.models.local import LocalModel
from puna.server.hosting.admission import Admission
from puna.server.settings import ServerSettings

__all__ = ["HostedModel", "Loaded", "host_local"]

_CACHE_CONTEXTS = 16  # full contexts that the cache holds where memory allows
_CACHE_SHARE = 4  # of the memory that weights leave, the cache takes a fourth at the most


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        llama: the model.
        admission: the queue in front of it.
    """

    llama: Llama
    admission: Admission

    def load(self) -> dict[str, int]:
        """What runs and waits, and how much of the cache is set aside."""
        return {
            "running": self.admission.n_running,
            "waiting": self.admission.n_waiting,
            "refused": self.admission.n_refused,
            "cache_tokens": self.llama.engine.cache_tokens,
            "cache_tokens_reserved": self.admission.reserved_tokens,
        }


@dataclass(eq=False, kw_only=True, slots=True)
class HostedModel:
    """A model that the server offers.

    Attributes:
        id: its name to clients.
        spellings: other ways to write it that an operator used.
        created: when the server began to offer it, seconds since 1970.
        context_tokens: tokens of a prompt and its answer.
        need_bytes: memory that it takes, weights and cache.
        load: brings it into memory, which takes a while.
        loaded: it, while it is in memory.
        n_users: requests that use it now or wait for it to be loaded.
        used_s: when it was last used, by the monotonic clock.
        arriving: the task that finds room for it and loads it, while there is one.
    """

    id: str
    context_tokens: int
    need_bytes: int
    load: Callable[[], Llama]
    spellings: set[str] = field(default_factory=set)
    created: int = field(default_factory=lambda: int(time.time()))
    loaded: Loaded | None = None
    n_users: int = 0
    used_s: float = 0.0
    arriving: asyncio.Task[Loaded] | None = None


def host_local(
    model: LocalModel, settings: ServerSettings, memory_bytes: int, draft: LocalModel | None = None
) -> HostedModel:
    """Describe a model of this machine, which is loaded later.

    Args:
        model: where it is.
        settings: context, threads, format, cache and speculation.
        memory_bytes: what all models together may take.
        draft: a smaller model of the same vocabulary, which guesses.

    Raises:
        ConfigError: the model does not have that context, or there cannot be so many threads.
    """
    config = model.checkpoint.config
    # Not only when it is loaded, which may be at a client's request.
    context, threads = context_for(config.max_seq_len, settings.context), threads_for(settings.threads)
    alone = memory(config, model.checkpoint.dtypes, settings.format, context, settings.cache)
    spare = memory_bytes - alone.weight_bytes - alone.workspace_bytes
    n_contexts = min(_CACHE_CONTEXTS, spare // _CACHE_SHARE // max(1, alone.cache_bytes))
    cache_tokens = max(1, n_contexts) * context

    def load() -> Llama:
        from puna.models.packed import pack_checkpoint

        packed = pack_checkpoint(model.checkpoint, settings.format, None)
        llama = Llama(
            model.name,
            model.checkpoint,
            packed,
            chat_format_name=model.chat_format,
            threads=threads,
            context=context,
            cache=settings.cache,
            speculation=settings.speculation,
            draft=draft.checkpoint if draft else None,
            cache_tokens=cache_tokens,
        )
        # The first constraint looks at the vocabulary, and holds up everybody for some 0.3 s: not answers.
        with suppress(ConstraintError):  # it is told to who has one
            llama.engine.prepare(JsonSchema())
        return llama

    return HostedModel(
        id=model.name,
        context_tokens=context,
        need_bytes=alone.total_bytes + (cache_tokens - context) * alone.cache_bytes // context,
        load=load,
    )
