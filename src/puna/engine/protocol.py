"""What an engine is: the one interface that the API, the agents and the server generate through."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from puna.constraints.forms import Constraint
from puna.engine.request import Request, TokenLogprob

__all__ = ["Engine"]


class Engine(Protocol):
    """Runs requests of one model, many at once. Every method may be called from any thread."""

    context_tokens: int
    cache_tokens: int

    @property
    def free_cache_tokens(self) -> int:
        """Positions of the cache, of `cache_tokens` in all, that no request holds right now."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing any more: `close` was called, or it found no memory to go on with."""
        ...

    def check_prompt(self, prompt: Sequence[int], room: int = 1) -> None:
        """Raise what `submit` would for a prompt, before anything waits for it.

        Args:
            prompt: token ids.
            room: positions of the context that must be left.

        Raises:
            CapacityError: it does not fit the context.
            ConfigError: it is empty or has ids outside the vocabulary.
        """
        ...

    def check_ids(self, tokens: Collection[int]) -> None:
        """Raise where ids are no tokens.

        Raises:
            ConfigError: one is outside the vocabulary.
        """
        ...

    def submit(self, request: Request) -> None:
        """Queue a request; its sink gets the events.

        Raises:
            CapacityError: the prompt does not fit the context, or never could fit the cache.
            ConfigError: the prompt is empty, or it or `logit_bias` has ids outside the vocabulary.
            EngineError: the engine is closed.
            ConstraintError: the request's constraint cannot be compiled.
        """
        ...

    def prepare(self, constraint: Constraint, owner: str = "") -> None:
        """Compile a constraint, so that submitting a request with it takes no time; it is kept for a while.

        Args:
            constraint: that of the request.
            owner: that of the request.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        ...

    def cancel(self, request: Request) -> None:
        """End a request at the next step, its last event says ``cancelled``; no effect on a finished one."""
        ...

    def embed(self, tokens: Sequence[int]) -> Future[NDArray[np.float32]]:
        """Mean of the final hidden states over a text, ``[dim]``, not normalised.

        It waits for room in the cache and is computed a slice a step, beside the answers. Cancelling the
        future ends that at the next step; it has an EngineError where the engine is closed meanwhile.

        Raises:
            CapacityError: the text does not fit the context, or never could fit the cache.
            ConfigError: the text is empty or has ids outside the vocabulary.
            EngineError: the engine is closed.
        """
        ...

    def score(self, tokens: Sequence[int], n_top: int = 0) -> Future[list[TokenLogprob]]:
        """Log-probability of every token after the first, given those before it; else as `embed`.

        Args:
            tokens: the text.
            n_top: so many of the likeliest tokens are told at each place.
        """
        ...

    def close(self) -> None:
        """End all requests and free the memory; may be called twice."""
        ...
