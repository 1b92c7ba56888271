"""``/messages``, as Anthropic's API has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter, Request, Response

from puna.server.answering import answering, count_tokens
from puna.server.answers.messages_answer import MessagesAnswer, chat_of
from puna.server.schemas.base import AnthropicErrorReply, NamedEvent
from puna.server.schemas.messages import CountBody, MessageReply, MessagesBody, TokenCount
from puna.server.services import Client, Services, TheServices
from puna.server.wire.reply import STREAMED, event_stream, json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["count_message_tokens", "create_message", "router"]

router = APIRouter(
    prefix="/messages",
    tags=["messages"],
    route_class=StrictRoute,
    responses={"4XX": {"model": AnthropicErrorReply}, "5XX": {"model": AnthropicErrorReply}},
)


@router.post("", response_model=MessageReply, responses=STREAMED)
async def create_message(
    request: Request, body: MessagesBody, services: TheServices, client: Client
) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    if body.stream:
        return event_stream(request, _events(services, body, client), has_done=False)
    return json_reply(await unless_gone(request, _whole(services, body, client)))


@router.post("/count_tokens", response_model=TokenCount)
async def count_message_tokens(body: CountBody, services: TheServices, client: Client) -> Response:
    """Say how long the prompt of a conversation would be."""
    async with services.pool.use(body.model) as model:
        count = partial(count_tokens, model, chat_of(body), services.owner_of(client))
        return json_reply(TokenCount(input_tokens=await services.counting.run(client, count)))


async def _whole(services: Services, body: MessagesBody, client: str) -> MessageReply:
    async with answering(services, chat_of(body), client) as choices:
        return await MessagesAnswer(choices, body).whole()


async def _events(services: Services, body: MessagesBody, client: str) -> AsyncGenerator[NamedEvent]:
    async with (
        answering(services, chat_of(body), client) as choices,
        aclosing(MessagesAnswer(choices, body).events()) as events,
    ):
        async for event in events:
            yield event
