"""``/responses``: answering."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi import Response as HttpResponse

from puna.server.answering import count_tokens
from puna.server.responding import begin_in_background, respond, respond_in_events
from puna.server.response_context import gather_context
from puna.server.schemas.response_replies import InputTokens, Response
from puna.server.schemas.responses import InputTokensBody, ResponseBody
from puna.server.services import Client, Owner, TheServices
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
        response, log = await begin_in_background(services, body, client, owner)
        return json_reply(response) if log is None else event_stream(request, log.read(0))
    if body.stream:
        return event_stream(request, respond_in_events(services, body, client, owner))
    return json_reply(await unless_gone(request, respond(services, body, client, owner)))


@router.post("/input_tokens", response_model=InputTokens)
async def count_input_tokens(
    body: InputTokensBody, services: TheServices, client: Client, owner: Owner
) -> HttpResponse:
    """Say how long the prompt of a response would be."""
    name = services.pool.name_or_only(body.model)
    async with services.pool.use(name) as model:

        async def count() -> int:
            # In one turn, so that nobody waits for the second half with all that the first has read.
            context = await gather_context(services, body, name, owner)
            return await count_tokens(model, context.chat, services.owner_of(client))

        n_tokens = await services.reading.run(client, count)
    return json_reply(InputTokens(object="response.input_tokens", input_tokens=n_tokens))
