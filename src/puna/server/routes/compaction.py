"""``/responses/compact``."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from puna.server.answering import answering
from puna.server.answers.compaction import summary_request, wrapped
from puna.server.answers.response_answer import usage_of_response
from puna.server.ids import new_id
from puna.server.response_context import gather_in_turn
from puna.server.schemas.items import Compaction, Item, Message
from puna.server.schemas.response_replies import Compacted
from puna.server.schemas.responses import CompactBody, ResponseInput
from puna.server.services import Client, Owner, Services, TheServices
from puna.server.wire.reply import json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["compact", "router"]

_ID_BYTES = 24

router = APIRouter(prefix="/responses", tags=["responses"], route_class=StrictRoute)


@router.post("/compact", response_model=Compacted)
async def compact(
    request: Request, body: CompactBody, services: TheServices, client: Client, owner: Owner
) -> Response:
    """Make a conversation short: what the user said, and the model's summary of all."""
    return json_reply(await unless_gone(request, _compact(services, body, client, owner)))


async def _compact(services: Services, body: CompactBody, client: str, owner: str) -> Compacted:
    given = body.model_dump(include={"instructions", "previous_response_id"})
    whole = ResponseInput(input=body.input or [], **given)
    context = await gather_in_turn(services, whole, body.model, client, owner)
    summary = ""
    async with answering(services, summary_request(context.chat), client, truncates=True) as choices:
        async for _, _, event in choices.arriving():
            summary += event.text
    said: list[Item] = [item for item in context.items if isinstance(item, Message) and item.role == "user"]
    item = Compaction(type="compaction", id=new_id("cmp_"), encrypted_content=wrapped(summary.strip()))
    return Compacted(
        id=new_id("resp_", _ID_BYTES),
        object="response.compaction",
        created_at=int(time.time()),
        output=[*said, item],
        usage=usage_of_response(choices.usages[0]),
    )
