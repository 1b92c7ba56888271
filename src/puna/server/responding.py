"""From the body of a response to the response: at once, as events, or in the background.

What becomes of it is kept before it is told. `background.py` runs what is computed in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial

from puna.errors import StateError
from puna.server import state
from puna.server.answering import answering
from puna.server.answers.items import stored
from puna.server.answers.response_answer import ResponseAnswer
from puna.server.answers.response_request import begin_response
from puna.server.errors import ApiError, as_api_error
from puna.server.event_log import EventLog
from puna.server.response_context import ResponseContext, gather_in_turn
from puna.server.schemas.response_events import ResponseEvent
from puna.server.schemas.response_replies import Response
from puna.server.schemas.responses import ResponseBody
from puna.server.services import Services
from puna.server.watch.log import log

__all__ = ["begin_in_background", "respond", "respond_in_events"]


async def respond(services: Services, body: ResponseBody, client: str, owner: str) -> Response:
    """The whole response.

    Args:
        services: the server's.
        body: the request.
        client: who asks, for fair turns.
        owner: whose things may be used, and who may see it.

    Raises:
        ApiError: as `gather_in_turn` and `answering` do; 404 or 400, its conversation is gone or full.
        PromptFormatError: see `answering`.
        ConstraintError: the answer cannot be held to what is asked for.
    """
    context = await gather_in_turn(services, body, body.model, client, owner)
    answer = _answer(body, begin_response(body, context.prompt))
    async with _running(services, body, context, answer, client) as events:
        async for _ in events:
            pass
    await _keep(services, answer.response, context, owner)
    return answer.response


async def respond_in_events(
    services: Services, body: ResponseBody, client: str, owner: str
) -> AsyncGenerator[ResponseEvent]:
    """The events of a response as they come; arguments and errors before the first one as for `respond`."""
    context = await gather_in_turn(services, body, body.model, client, owner)
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
        answer.response = answer.response.model_copy(update={"store": False})  # nobody will find it
    yield answer.last()


async def begin_in_background(
    services: Services, body: ResponseBody, client: str, owner: str
) -> tuple[Response, EventLog | None]:
    """Have a response computed while its client does something else; arguments as for `respond`.

    Returns:
        The response, which is queued, and its events where they are streamed.

    Raises:
        ApiError: 400, it is not to be kept; 404, there is no such model; 429, too many are computed; and as
            `gather_in_turn` does.
    """
    if body.store is False:
        raise ApiError(400, "`background` needs `store`: the response is fetched later", param="store")
    context = await gather_in_turn(services, body, body.model, client, owner)
    services.pool.find(body.model)
    response = begin_response(body, context.prompt).model_copy(update={"status": "queued"})
    with services.background.place(client):
        await _keep(services, response, context, owner)
        log = services.background.logs.begin(response.id) if body.stream else None
        work = _compute(services, body, context, response, client, owner)
        services.background.run(response.id, client, work)
    return response, log


async def _compute(
    services: Services,
    body: ResponseBody,
    context: ResponseContext,
    queued: Response,
    client: str,
    owner: str,
) -> None:
    """The life of a response in the background, behind its beginning."""
    answer = _answer(body, queued.model_copy(update={"output": []}))
    tell = partial(services.background.logs.add, queued.id)
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
                    await _write_running(services, running, context, owner)
                tell(event)
    except asyncio.CancelledError:
        return  # whoever cancelled it has written so
    except Exception as error:
        answer.fail(as_api_error(error))
    if await _write_end(services, answer, context, owner):
        tell(answer.last())


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


async def _write_running(services: Services, running: Response, context: ResponseContext, owner: str) -> None:
    try:
        await _finish(services, running, context, owner)
    except (ApiError, StateError) as error:  # nothing depends on it: what counts is the end
        log("state_failed", error=str(error))


async def _write_end(
    services: Services, answer: ResponseAnswer, context: ResponseContext, owner: str
) -> bool:
    """Write how a response in the background ended, again and again while the database is busy or full.

    Returns:
        False where it is not wanted any more. What could not be written has failed.
    """
    while True:
        try:
            return await _finish(services, answer.response, context, owner)
        except Exception as error:
            reason = as_api_error(error)
        is_passing = reason.status_code in (503, 507)
        if is_passing and await services.background.may_try_again():
            continue
        is_lost = is_passing or answer.response.status == "failed"
        answer.fail(reason)  # its conversation is gone or full, say, and that can be written
        if is_lost:
            return True


async def _finish(services: Services, response: Response, context: ResponseContext, owner: str) -> bool:
    """Write what became of a response in the background; False where it is not wanted any more."""
    kept = state.responses.StoredResponse(response.model_dump(exclude_unset=True), stored(context.new))
    return await services.state.write(state.responses.finish, owner, kept)
