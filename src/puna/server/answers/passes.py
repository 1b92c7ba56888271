"""Passes over a text that give no new tokens: embeddings and log-probabilities, each when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from puna.server.errors import ApiError
from puna.server.hosting.hosted import Loaded

__all__ = ["embed_all", "score"]


async def embed_all(
    model: Loaded, inputs: Sequence[Sequence[int]], client: str, timeout_s: float
) -> NDArray[np.float32]:
    """Vectors of length 1, in the order of the inputs.

    Args:
        model: what computes.
        inputs: token ids.
        client: who asks, for fair turns.
        timeout_s: time for all of them, waiting included.

    Returns:
        ``[inputs, dim]``.

    Raises:
        ApiError: too many wait already, an input could never fit, or it takes too long.
        CapacityError: an input does not fit the context.
        ConfigError: an input is empty or has ids outside the vocabulary.
    """
    model.admission.check(client, 1)
    rows = []
    async with _limited(timeout_s):
        for ids in inputs:
            rows.append(await _pass(model, ids, client, partial(model.llama.engine.embed, [ids])))
    vectors = np.concatenate(rows)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


async def score(model: Loaded, ids: Sequence[int], client: str, timeout_s: float) -> list[float]:
    """Log-probability of every token after the first; arguments and errors as for `embed_all`."""
    async with _limited(timeout_s):
        found = await _pass(model, ids, client, partial(model.llama.engine.score, ids))
    return [float(value) for value in found]


@asynccontextmanager
async def _limited(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise ApiError(504, f"the answer took longer than {timeout_s:g} s", code="timeout") from None


async def _pass(
    model: Loaded, ids: Sequence[int], client: str, compute: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    async with model.admission.reserve(client, len(ids)):
        computing = asyncio.ensure_future(asyncio.to_thread(compute))
        try:
            return await asyncio.shield(computing)
        finally:
            # Its place and the model stay taken while the engine computes, whoever went away.
            await asyncio.wait((computing,))
