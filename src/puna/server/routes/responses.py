"""``/responses``: answering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import APIRouter, Request
from fastapi import Response as HttpResponse

from puna.server import state
from puna.server.answering import answering, count_tokens
from puna.server.answers.items import stored
from puna.server.answers.response_answer import ResponseAnswer
from puna.server.answers.response_request import begin_response
from puna.server.errors import ApiError, as_api_error
from puna.server.event_log import EventLog
from puna.server.response_context import ResponseContext, gather_context
from puna.server.schemas.response_events import ResponseEvent
from puna.server.schemas.responses import InputTokens, InputTokensBody, Response, ResponseBody
from puna.server.services import Client, Owner, Services, TheServices
from puna.server.wire.reply import STREAMED, event_stream, json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["count_input_tokens", "create_response", "router"]

router = APIRouter(prefix="/responses", tags=["responses"], route_class=StrictRoute)


@router.post("", response_model=Response, responses=STREAMED)
async def create_response(
    request: Request, body: ResponseBody, services: TheServices, client: Client, owner: Owner
) -> HttpResponse:
    """Respond to items, at once, as a stream of events, or in the background."""
    if body.background:
        response, log = await _begin_in_background(services, body, client, owner)
        return json_reply(response) if log is None else await event_stream(request, log.read(0))
    context = await gather_context(services.state, body, owner)
    if body.stream:
        return await event_stream(request, _events(services, body, context, client, owner))
    return json_reply(await unless_gone(request, _whole(services, body, context, client, owner)))


@router.post("/input_tokens", response_model=InputTokens)
async def count_input_tokens(body: InputTokensBody, services: TheServices, owner: Owner) -> HttpResponse:
    """Say how long the prompt of a response would be."""
    context = await gather_context(services.state, body, owner)
    n_tokens = await count_tokens(services, context.chat)
    return json_reply(InputTokens(object="response.input_tokens", input_tokens=n_tokens))


@asynccontextmanager
async def _running(
    services: Services, body: ResponseBody, context: ResponseContext, answer: ResponseAnswer, client: str
) -> AsyncIterator[AsyncGenerator[ResponseEvent]]:
    truncates = body.truncation == "auto"
    async with (
        answering(services, context.chat, client, truncates=truncates) as choices,
        aclosing(answer.events(choices)) as events,
    ):
        yield events


async def _whole(
    services: Services, body: ResponseBody, context: ResponseContext, client: str, owner: str
) -> Response:
    answer = _answer(body, begin_response(body, context.prompt))
    async with _running(services, body, context, answer, client) as events:
        async for _ in events:
            pass
    await _keep(services, answer.response, context, owner)
    return answer.response


async def _events(
    services: Services, body: ResponseBody, context: ResponseContext, client: str, owner: str
) -> AsyncGenerator[ResponseEvent]:
    answer = _answer(body, begin_response(body, context.prompt))
    has_begun = False
    try:
        async with _running(services, body, context, answer, client) as events:
            async for event in events:
                has_begun = True
                yield event
        await _keep(services, answer.response, context, owner)
    except Exception as error:
        if not has_begun:
            raise
        answer.fail(as_api_error(error))
    yield answer.last()


async def _begin_in_background(
    services: Services, body: ResponseBody, client: str, owner: str
) -> tuple[Response, EventLog | None]:
    """A response that is queued, and its events where they are streamed."""
    if body.store is False:
        raise ApiError(400, "`background` needs `store`: the response is fetched later", param="store")
    context = await gather_context(services.state, body, owner)
    services.pool.find(body.model)
    response = begin_response(body, context.prompt).model_copy(update={"status": "queued"})
    with services.background.place():
        await _keep(services, response, context, owner)
        log = services.background.logs.begin(response.id) if body.stream else None
        work = _compute(services, body, context, response, log, client, owner)
        services.background.run(response.id, work)
    return response, log


async def _compute(
    services: Services,
    body: ResponseBody,
    context: ResponseContext,
    queued: Response,
    log: EventLog | None,
    client: str,
    owner: str,
) -> None:
    answer = _answer(body, queued.model_copy(update={"output": []}))
    tell = log.add if log else lambda _: None
    for event in answer.queued():
        tell(event)
    answer.response = answer.response.model_copy(update={"status": "in_progress"})
    is_running = False
    try:
        async with _running(services, body, context, answer, client) as events:
            async for event in events:
                if not is_running:
                    is_running = True
                    running = queued.model_copy(update={"status": "in_progress"})
                    await _finish(services, running, context, owner)
                tell(event)
    except asyncio.CancelledError:
        return  # whoever cancelled it has written so
    except Exception as error:
        answer.fail(as_api_error(error))
    try:
        is_wanted = await _finish(services, answer.response, context, owner)
    except Exception as error:  # its conversation is gone, or full
        answer.fail(as_api_error(error))
        is_wanted = await _finish(services, answer.response, context, owner)
    if is_wanted:
        tell(answer.last())


def _answer(body: ResponseBody, response: Response) -> ResponseAnswer:
    return ResponseAnswer(response, has_logprobs="message.output_text.logprobs" in (body.include or ()))


async def _keep(services: Services, response: Response, context: ResponseContext, owner: str) -> None:
    """Keep a response that is to be kept; what was said becomes part of its conversation in any case."""
    kept = state.responses.StoredResponse(response.model_dump(exclude_unset=True), stored(context.new))
    if response.store:
        await services.state.write(state.responses.add, owner, kept)
    elif response.conversation is not None:
        said = [*kept.input, *kept.body["output"]]
        await services.state.write(state.conversations.add_items, owner, response.conversation.id, said)


async def _finish(services: Services, response: Response, context: ResponseContext, owner: str) -> bool:
    """Write what became of a response in the background; False where it is not wanted any more."""
    kept = state.responses.StoredResponse(response.model_dump(exclude_unset=True), stored(context.new))
    return await services.state.write(state.responses.finish, owner, kept)
