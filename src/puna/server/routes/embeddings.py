"""``/embeddings``."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from puna.server.answers.deadline import Deadline
from puna.server.answers.passes import embed_all
from puna.server.errors import ApiError, about
from puna.server.schemas.embeddings import Embeddings, EmbeddingsBody, EmbeddingUsage
from puna.server.services import Client, Services, TheServices
from puna.server.wire.reply import unless_gone, written_reply
from puna.server.wire.strict import StrictRoute

__all__ = ["create_embeddings", "router"]

router = APIRouter(tags=["embeddings"], route_class=StrictRoute)


@router.post("/embeddings", response_model=Embeddings)
async def create_embeddings(
    request: Request, body: EmbeddingsBody, services: TheServices, client: Client
) -> Response:
    """Turn texts into vectors of length 1: the mean of the final hidden states over a text's tokens."""
    return written_reply(await unless_gone(request, _embed(services, body, client)))


async def _embed(services: Services, body: EmbeddingsBody, client: str) -> str:
    deadline = Deadline(services.settings.timeout_s)
    async with services.pool.use(body.model) as model:
        dim = model.llama.config.dim
        if body.dimensions not in (None, dim):
            raise ApiError(
                400, f"`dimensions` must be {dim} with this model, got {body.dimensions}", param="dimensions"
            )
        encode = model.llama.chat_format.encode_text
        inputs = [
            await asyncio.to_thread(encode, text) if isinstance(text, str) else text for text in body.inputs()
        ]
        with about("input"):
            vectors = await embed_all(model, inputs, client, deadline)
    return await asyncio.to_thread(_written, body, sum(map(len, inputs)), vectors)


def _written(body: EmbeddingsBody, n_tokens: int, vectors: NDArray[np.float32]) -> str:
    """`Embeddings` as JSON, vector by vector: millions of numbers in one go would hold up everybody."""
    as_text = body.encoding_format == "base64"
    rows = (base64.b64encode(row.tobytes()).decode() if as_text else row.tolist() for row in vectors)
    data = (json.dumps({"object": "embedding", "index": i, "embedding": row}) for i, row in enumerate(rows))
    usage = EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens)
    rest = json.dumps({"model": body.model, "usage": usage.model_dump()})
    return f'{{"object": "list", "data": [{", ".join(data)}], {rest[1:]}'
