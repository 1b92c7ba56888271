"""``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Response

from puna.server.schemas.tokens import DetokenizeBody, Detokenized, TokenizeBody, Tokenized
from puna.server.services import Client, TheServices
from puna.server.wire.reply import json_reply
from puna.server.wire.strict import StrictRoute

__all__ = ["detokenize", "router", "tokenize"]

router = APIRouter(tags=["tokens"], route_class=StrictRoute)


@router.post("/tokenize", response_model=Tokenized)
async def tokenize(body: TokenizeBody, services: TheServices, client: Client) -> Response:
    """Turn a text into token ids, as `/completions` does."""
    async with services.pool.use(body.model) as model:
        llama = model.llama
        encode = llama.chat_format.encode_text if body.add_special_tokens else llama.tokenizer.encode
        ids = await services.counting.run(client, partial(asyncio.to_thread, encode, body.prompt))
        return json_reply(Tokenized(tokens=ids, count=len(ids), max_model_len=llama.engine.context_tokens))


@router.post("/detokenize", response_model=Detokenized)
async def detokenize(body: DetokenizeBody, services: TheServices, client: Client) -> Response:
    """Turn token ids back into text."""
    async with services.pool.use(body.model) as model:
        decode = partial(asyncio.to_thread, model.llama.tokenizer.decode, body.tokens)
        return json_reply(Detokenized(prompt=await services.counting.run(client, decode)))
