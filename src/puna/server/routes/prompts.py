"""``/prompts``: texts in versions, for the `prompt` of a response."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from puna.server import state
from puna.server.schemas.prompts import MAX_VERSION, DefaultBody, NewPrompt, Prompt, PromptBody, Prompts
from puna.server.services import Owner, TheServices
from puna.server.state.prompts import PromptVersion
from puna.server.wire.page import whole_reply
from puna.server.wire.reply import json_reply
from puna.server.wire.strict import StrictRoute

__all__ = [
    "create_prompt",
    "delete_prompt",
    "get_prompt",
    "list_prompt_versions",
    "list_prompts",
    "router",
    "set_default_version",
    "update_prompt",
]

router = APIRouter(prefix="/prompts", tags=["prompts"], route_class=StrictRoute)


@router.post("", response_model=Prompt)
async def create_prompt(body: NewPrompt, services: TheServices, owner: Owner) -> Response:
    """Keep a prompt, as its version 1."""
    made = await services.state.write(state.prompts.add, owner, body.prompt, body.variables or [])
    return json_reply(_prompt(made))


@router.get("", response_model=Prompts)
async def list_prompts(services: TheServices, owner: Owner) -> Response:
    """Every prompt's default version."""
    found = await services.state.read(state.prompts.list_all, owner)
    return await whole_reply(found, _prompt)


@router.get("/{prompt_id}", response_model=Prompt)
async def get_prompt(
    prompt_id: str,
    services: TheServices,
    owner: Owner,
    version: Annotated[int | None, Query(ge=1, le=MAX_VERSION)] = None,
) -> Response:
    """A version of a prompt, the default one where none is named."""
    return json_reply(_prompt(await services.state.read(state.prompts.find, owner, prompt_id, version)))


@router.put("/{prompt_id}", response_model=Prompt)
async def update_prompt(prompt_id: str, body: PromptBody, services: TheServices, owner: Owner) -> Response:
    """Add a version."""
    added = await services.state.write(
        state.prompts.add_version,
        owner,
        prompt_id,
        body.prompt,
        body.variables or [],
        latest=body.version,
        becomes_default=body.set_as_default,
    )
    return json_reply(_prompt(added))


@router.delete("/{prompt_id}", status_code=204)
async def delete_prompt(prompt_id: str, services: TheServices, owner: Owner) -> Response:
    """Keep a prompt and its versions no longer."""
    await services.state.delete(state.prompts.remove, owner, prompt_id)
    return Response(status_code=204)


@router.put("/{prompt_id}/set-default-version", response_model=Prompt)
async def set_default_version(
    prompt_id: str, body: DefaultBody, services: TheServices, owner: Owner
) -> Response:
    """Say which version is meant where none is named."""
    changed = await services.state.write(state.prompts.set_default, owner, prompt_id, body.version)
    return json_reply(_prompt(changed))


@router.get("/{prompt_id}/versions", response_model=Prompts)
async def list_prompt_versions(prompt_id: str, services: TheServices, owner: Owner) -> Response:
    """Every version of a prompt."""
    found = await services.state.read(state.prompts.versions, owner, prompt_id)
    return await whole_reply(found, _prompt)


def _prompt(found: PromptVersion) -> Prompt:
    return Prompt(
        prompt_id=found.id,
        prompt=found.text,
        version=found.version,
        variables=found.variables,
        is_default=found.is_default,
    )
