"""``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Response

from puna.llama import Llama
from puna.server.schemas.tokens import DetokenizeBody, Detokenized, TokenizeBody, Tokenized
from puna.server.services import Client, TheServices
from puna.server.wire.reply import written_reply
from puna.server.wire.strict import StrictRoute

__all__ = ["detokenize", "router", "tokenize"]

router = APIRouter(tags=["tokens"], route_class=StrictRoute)

_PIECE = 8192  # ids or characters, which take less than a millisecond


@router.post("/tokenize", response_model=Tokenized)
async def tokenize(body: TokenizeBody, services: TheServices, client: Client) -> Response:
    """Turn a text into token ids, as `/completions` does."""
    async with services.pool.use(body.model) as model:
        work = partial(asyncio.to_thread, _tokenized, model.llama, body)
        return written_reply(await services.counting.run(client, work))


@router.post("/detokenize", response_model=Detokenized)
async def detokenize(body: DetokenizeBody, services: TheServices, client: Client) -> Response:
    """Turn token ids back into text."""
    async with services.pool.use(body.model) as model:
        work = partial(asyncio.to_thread, _detokenized, model.llama, body)
        return written_reply(await services.counting.run(client, work))


def _tokenized(llama: Llama, body: TokenizeBody) -> bytes:
    encode = llama.chat_format.encode_text if body.add_special_tokens else llama.tokenizer.encode
    ids = encode(body.prompt)
    counts = b'"count":%d,"max_model_len":%d' % (len(ids), llama.engine.context_tokens)
    return b'{"tokens":[%b],%b}' % (_written(ids, b","), counts)


def _detokenized(llama: Llama, body: DetokenizeBody) -> bytes:
    return b'{"prompt":"%b"}' % _written(llama.tokenizer.decode(body.tokens), b"")


def _written(value: Sequence[int] | str, between: bytes) -> bytes:
    """The inside of a list or text in JSON, piece by piece: millions in one go would hold up everybody."""
    pieces = (value[start : start + _PIECE] for start in range(0, len(value), _PIECE))
    return between.join(
        json.dumps(piece, ensure_ascii=False, separators=(",", ":"))[1:-1].encode() for piece in pieces
    )
