"""``/responses``: those that were stored."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Response as HttpResponse

from puna.server import state
from puna.server.answers.items import as_item
from puna.server.errors import ApiError
from puna.server.schemas.base import Deleted
from puna.server.schemas.lists import After, Limit, ModelFilter, OrderOf
from puna.server.schemas.response_replies import ItemPage, ListedResponse, Response, ResponsePage
from puna.server.services import Client, Owner, TheServices
from puna.server.state.pages import Page, paged
from puna.server.state.responses import StoredResponse
from puna.server.wire.page import page_reply
from puna.server.wire.reply import STREAMED, event_stream, json_reply, stored_reply
from puna.server.wire.strict import StrictRoute

__all__ = [
    "cancel_response",
    "delete_response",
    "get_response",
    "list_input_items",
    "list_responses",
    "router",
]

router = APIRouter(prefix="/responses", tags=["stored responses"], route_class=StrictRoute)


@router.get("", response_model=ResponsePage)
async def list_responses(
    services: TheServices,
    owner: Owner,
    model: ModelFilter = None,
    after: After = None,
    limit: Limit = 50,
    order: OrderOf = "desc",
) -> HttpResponse:
    """List responses, each with its own input."""
    wanted, running = Page(after, limit, order), services.background.running
    page = await services.state.read(state.responses.list_page, owner, wanted, model, running)
    return await page_reply(page, _listed)


@router.get("/{response_id}", response_model=Response, responses=STREAMED)
async def get_response(
    request: Request,
    response_id: str,
    services: TheServices,
    owner: Owner,
    stream: Annotated[
        bool, Query(description="The events of one that was begun with `background` and `stream`.")
    ] = False,
    starting_after: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Only the events behind that number.")
    ] = None,
) -> HttpResponse:
    """One response, or its events."""
    running = services.background.running
    found = await services.state.read(state.responses.find, owner, response_id, running)
    if not stream:
        return stored_reply(found.body)
    log = services.background.logs.find(response_id)
    if log is None:
        raise ApiError(
            400,
            "this response has no events to be streamed: they are kept here while a response that was begun "
            "with `background` and `stream` is computed, and ten minutes longer; leave `stream` out",
            param="stream",
        )
    return event_stream(request, log.read(0 if starting_after is None else starting_after + 1))


@router.delete("/{response_id}", response_model=Deleted)
async def delete_response(response_id: str, services: TheServices, owner: Owner) -> HttpResponse:
    """Keep a response no longer; what is being computed of it stops."""
    await services.state.delete(state.responses.remove, owner, response_id)
    services.background.forget(response_id)
    return json_reply(Deleted(id=response_id, object="response", deleted=True))


@router.post("/{response_id}/cancel", response_model=Response)
async def cancel_response(response_id: str, services: TheServices, owner: Owner) -> HttpResponse:
    """Stop computing a response in the background."""
    running = services.background.running
    found = await services.state.write(state.responses.cancel, owner, response_id, running)
    services.background.cancel(response_id)
    return stored_reply(found.body)


@router.get("/{response_id}/input_items", response_model=ItemPage)
async def list_input_items(
    response_id: str,
    services: TheServices,
    client: Client,
    owner: Owner,
    after: After = None,
    limit: Limit = 20,
    order: OrderOf = "desc",
) -> HttpResponse:
    """What a response answers: its own input, behind what was said in the responses that it goes on from."""

    async def page() -> HttpResponse:
        chain = await services.state.read(state.responses.chain, owner, response_id)
        said = [*state.responses.said(chain[:-1]), *chain[-1].input]
        return await page_reply(paged(said, Page(after, limit, order)), as_item)

    return await services.reading.run(client, page)


def _listed(found: StoredResponse) -> ListedResponse:
    return ListedResponse.model_validate({**found.body, "input": found.input})
