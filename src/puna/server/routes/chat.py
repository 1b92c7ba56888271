"""``/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import APIRouter, Request, Response

from puna.server.answers.chat_answer import ChatAnswer
from puna.server.answers.conversation import plan_chat
from puna.server.answers.generation import Wanted
from puna.server.schemas.chat import ChatBody, ChatChunk, ChatCompletion
from puna.server.services import Client, Services, TheServices
from puna.server.wire.reply import event_stream, json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["create_chat_completion", "router"]

router = APIRouter(tags=["chat"], route_class=StrictRoute)


@router.post("/chat/completions", response_model=ChatCompletion)
async def create_chat_completion(
    request: Request, body: ChatBody, services: TheServices, client: Client
) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    if body.stream:
        return await event_stream(request, _chunks(services, body, client))
    return json_reply(await unless_gone(request, _whole(services, body, client)))


async def _whole(services: Services, body: ChatBody, client: str) -> ChatCompletion:
    async with _answer(services, body, client) as answer:
        return await answer.whole()


async def _chunks(services: Services, body: ChatBody, client: str) -> AsyncGenerator[ChatChunk]:
    async with _answer(services, body, client) as answer, aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            yield chunk


@asynccontextmanager
async def _answer(services: Services, body: ChatBody, client: str) -> AsyncIterator[ChatAnswer]:
    async with services.pool.use(body.model) as model:
        model.admission.check(body.n or 1)
        # In a thread, since a long conversation or a large tool takes a while.
        plan = await asyncio.to_thread(plan_chat, model.llama, body)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        max_tokens = body.max_completion_tokens or body.max_tokens
        wanted = [
            Wanted(plan.prompt, body.params(i, max_tokens=max_tokens, logprobs=logprobs))
            for i in range(body.n or 1)
        ]
        generation = services.generate(model, wanted, client)
        yield ChatAnswer(generation, model.llama.tokenizer, plan.tools, body)
