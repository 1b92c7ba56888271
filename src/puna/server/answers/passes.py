"""Passes over texts that give no new tokens: embeddings and log-probabilities, when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from puna._native import BLOCK_TOKENS
from puna.engine.request import TokenLogprob
from puna.engine.scheduler import STEP_TOKENS
from puna.errors import EngineError
from puna.server.answers.deadline import Deadline
from puna.server.errors import shutting_down
from puna.server.hosting.hosted import Loaded

__all__ = ["embed_all", "score_all"]

T = TypeVar("T")


async def embed_all(
    model: Loaded, inputs: Sequence[Sequence[int]], client: str, deadline: Deadline
) -> NDArray[np.float32]:
    """Vectors of length 1, in the order of the inputs.

    Args:
        model: what computes.
        inputs: token ids.
        client: who asks, for fair turns.
        deadline: of the request.

    Returns:
        ``[inputs, dim]``.

    Raises:
        ApiError: too many wait already, it takes too long, or the server is shutting down.
        CapacityError: an input does not fit the context, or never could fit the cache.
        ConfigError: an input is empty or has ids outside the vocabulary.
    """
    model.admission.check(client, 1)
    rows: list[NDArray[np.float32]] = await _each(model, inputs, client, deadline, model.llama.engine.embed)
    vectors = np.stack(rows)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


async def score_all(
    model: Loaded, prompts: Sequence[Sequence[int]], client: str, deadline: Deadline, n_top: int
) -> list[list[TokenLogprob]]:
    """Log-probabilities of each prompt's tokens after the first, and of the likeliest at each place.

    Args:
        model: what computes.
        prompts: token ids.
        client: who asks, for fair turns.
        deadline: of the request.
        n_top: how many of the likeliest.

    Raises:
        ApiError: too many wait already, or it takes too long.
        CapacityError: a prompt does not fit the context, or never could fit the cache.
        ConfigError: a prompt is empty or has ids outside the vocabulary.
    """
    return await _each(model, prompts, client, deadline, partial(model.llama.engine.score, n_top=n_top))


async def _each(
    model: Loaded,
    texts: Sequence[Sequence[int]],
    client: str,
    deadline: Deadline,
    begin: Callable[[Sequence[int]], Future[T]],
) -> list[T]:
    """What a pass over each text gives, short ones together, in one turn; the same text is computed once."""
    for ids in texts:
        model.llama.engine.check_prompt(ids, room=0)
    found: dict[tuple[int, ...], T] = {}
    most = min(STEP_TOKENS, model.llama.engine.cache_tokens)
    groups = _groups(dict.fromkeys(tuple(ids) for ids in texts), most)
    try:
        async with deadline.limit(), model.admission.reserve(client, max(map(_cache_tokens, groups))):
            for group in groups:
                # Who goes away cancels these futures, and with them the engine's.
                passes: list[asyncio.Future[T]] = []
                try:
                    for ids in group:
                        passes.append(asyncio.wrap_future(begin(ids)))
                    found |= zip(group, await asyncio.gather(*passes), strict=True)
                finally:
                    for each in passes:  # where one has failed, or did not begin, nobody wants the others
                        each.cancel()
    except TimeoutError:
        raise deadline.error() from None
    except EngineError:
        if model.admission.is_closed:  # the engine was closed under it
            raise shutting_down() from None
        raise
    return [found[tuple(ids)] for ids in texts]


def _groups(texts: Iterable[tuple[int, ...]], most: int) -> list[list[tuple[int, ...]]]:
    """Texts that together take so many positions at the most, each in one group; a longer one is alone."""
    groups: list[list[tuple[int, ...]]] = []
    for ids in texts:
        if groups and _cache_tokens([*groups[-1], ids]) <= most:
            groups[-1].append(ids)
        else:
            groups.append([ids])
    return groups


def _cache_tokens(group: Iterable[Sequence[int]]) -> int:
    """Positions of the cache that a group takes, in whole blocks."""
    return sum(-(-len(ids) // BLOCK_TOKENS) * BLOCK_TOKENS for ids in group)
