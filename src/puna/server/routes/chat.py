"""``/chat/completions``: answering."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response

from puna.server import state
from puna.server.answering import answering
from puna.server.answers.chat_answer import ChatAnswer
from puna.server.schemas.chat import ChatBody, ChatChunk, ChatCompletion
from puna.server.services import Client, Owner, Services, TheServices
from puna.server.wire.reply import STREAMED, event_stream, json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["create_chat_completion", "router"]

router = APIRouter(tags=["chat"], route_class=StrictRoute)


@router.post("/chat/completions", response_model=ChatCompletion, responses=STREAMED)
async def create_chat_completion(
    request: Request, body: ChatBody, services: TheServices, client: Client, owner: Owner
) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    if body.stream:
        return event_stream(request, _chunks(services, body, client, owner))
    return json_reply(await unless_gone(request, _whole(services, body, client, owner)))


async def _whole(services: Services, body: ChatBody, client: str, owner: str) -> ChatCompletion:
    async with answering(services, body, client) as choices:
        completion = await ChatAnswer(choices, body).whole()
    await _store(services, body, completion, owner)
    return completion


async def _chunks(services: Services, body: ChatBody, client: str, owner: str) -> AsyncGenerator[ChatChunk]:
    async with answering(services, body, client) as choices:
        answer = ChatAnswer(choices, body)
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
    await _store(services, body, answer.completion(), owner)


async def _store(services: Services, body: ChatBody, completion: ChatCompletion, owner: str) -> None:
    """Keep a completion that is to be kept; a stream ends, and a reply is sent, once it is."""
    if body.store:
        stored = state.completions.StoredCompletion(
            completion.model_dump(exclude_unset=True),
            [message.model_dump(exclude_none=True) for message in body.messages],
            body.metadata or {},
        )
        await services.state.write(state.completions.add, owner, stored)
