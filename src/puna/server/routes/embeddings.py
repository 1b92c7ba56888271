"""``/embeddings``."""

from __future__ import annotations

import asyncio
import base64

from fastapi import APIRouter, Request, Response

from puna.server.answers.deadline import Deadline
from puna.server.answers.passes import embed_all
from puna.server.errors import ApiError
from puna.server.schemas.embeddings import Embedding, Embeddings, EmbeddingsBody, EmbeddingUsage
from puna.server.services import Client, Services, TheServices
from puna.server.wire.reply import json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["create_embeddings", "router"]

router = APIRouter(tags=["embeddings"], route_class=StrictRoute)


@router.post("/embeddings", response_model=Embeddings)
async def create_embeddings(
    request: Request, body: EmbeddingsBody, services: TheServices, client: Client
) -> Response:
    """Turn texts into vectors of length 1: the mean of the final hidden states over a text's tokens."""
    return json_reply(await unless_gone(request, _embed(services, body, client)))


async def _embed(services: Services, body: EmbeddingsBody, client: str) -> Embeddings:
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
        vectors = await embed_all(model, inputs, client, deadline)
    as_text = body.encoding_format == "base64"
    n_tokens = sum(map(len, inputs))
    return Embeddings(
        object="list",
        data=[
            Embedding(
                object="embedding",
                index=i,
                embedding=base64.b64encode(row.tobytes()).decode() if as_text else row.tolist(),
            )
            for i, row in enumerate(vectors)
        ],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
    )
