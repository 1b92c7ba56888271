"""Passes over a text that give no new tokens: embeddings and log-probabilities, each when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from puna.server.hosting.hosted import Loaded

__all__ = ["embed_all", "score"]


async def embed_all(model: Loaded, inputs: Sequence[Sequence[int]], client: str) -> NDArray[np.float32]:
    """Vectors of length 1, in the order of the inputs.

    Args:
        model: what computes.
        inputs: token ids.
        client: who asks, for fair turns.

    Returns:
        ``[inputs, dim]``.

    Raises:
        ApiError: too many wait already, or an input could never fit.
        CapacityError: an input does not fit the context.
        ConfigError: an input is empty or has ids outside the vocabulary.
    """
    model.admission.check(1)
    rows = []
    for ids in inputs:
        rows.append(await _pass(model, ids, client, partial(model.llama.engine.embed, [ids])))
    vectors = np.concatenate(rows)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


async def score(model: Loaded, ids: Sequence[int], client: str) -> list[float]:
    """Log-probability of every token after the first; arguments and errors as for `embed_all`."""
    found = await _pass(model, ids, client, partial(model.llama.engine.score, ids))
    return [float(value) for value in found]


async def _pass(
    model: Loaded, ids: Sequence[int], client: str, compute: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    async def run() -> NDArray[np.float32]:
        async with model.admission.reserve(client, len(ids)):
            return await asyncio.to_thread(compute)

    # Shielded, so that its place stays taken while the engine computes, whoever went away.
    return await asyncio.shield(asyncio.create_task(run()))
