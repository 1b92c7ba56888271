"""``/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import APIRouter, Request, Response

from puna.constraints.forms import Constraint
from puna.llama import Llama
from puna.server.answers.completion_answer import CompletionAnswer
from puna.server.answers.conversation import QUICK_CHARACTERS
from puna.server.answers.generation import Wanted
from puna.server.errors import ApiError, about
from puna.server.hosting.hosted import Loaded
from puna.server.schemas.completions import Completion, CompletionBody
from puna.server.schemas.response_format import constraint_of
from puna.server.services import Client, Services, TheServices
from puna.server.wire.reply import STREAMED, event_stream, json_reply, unless_gone
from puna.server.wire.strict import StrictRoute

__all__ = ["create_completion", "router"]

_DEFAULT_TOKENS = 16  # OpenAI's
_MAX_TOLD = 2**19  # log-probabilities of prompts: some 20 MB of JSON

router = APIRouter(tags=["completions"], route_class=StrictRoute)


@router.post("/completions", response_model=Completion, responses=STREAMED)
async def create_completion(
    request: Request, body: CompletionBody, services: TheServices, client: Client
) -> Response:
    """Go on with a text, or with several, at once or as a stream of events."""
    if body.stream:
        return event_stream(request, _chunks(services, body, client))
    return json_reply(await unless_gone(request, _whole(services, body, client)))


async def _whole(services: Services, body: CompletionBody, client: str) -> Completion:
    async with services.pool.use(body.model) as model:
        return await (await _answer(services, model, body, client)).whole()


async def _chunks(services: Services, body: CompletionBody, client: str) -> AsyncGenerator[Completion]:
    async with services.pool.use(body.model) as model:
        answer = await _answer(services, model, body, client)
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk


async def _answer(services: Services, model: Loaded, body: CompletionBody, client: str) -> CompletionAnswer:
    model.admission.check(client, max(body.n_wanted, 1))
    n_characters = sum(len(prompt) for prompt in body.prompts() if isinstance(prompt, str))
    owner = services.owner_of(client)
    if body.response_format is None and n_characters <= QUICK_CHARACTERS:
        prompts, constraint = _plan(model.llama, body, owner)
    else:
        prompts, constraint = await asyncio.to_thread(_plan, model.llama, body, owner)
    _bound_scores(body, prompts)
    with about("logit_bias"):
        model.llama.engine.check_ids(body.biases)
    max_tokens = _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    params = [
        body.params(i, max_tokens=max_tokens, logprobs=body.logprobs, constraint=constraint)
        for i in range((body.n or 1) if max_tokens else 0)
    ]
    wanted = [Wanted(prompt, each) for prompt in prompts for each in params]
    with about("prompt"):
        for prompt in prompts if not wanted else ():  # what is wanted is checked where it is submitted
            model.llama.engine.check_prompt(prompt, room=0)
        generation = services.generate(model, wanted, client)
    return CompletionAnswer(generation, model, prompts, body, client=client)


def _bound_scores(body: CompletionBody, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse to tell more log-probabilities of prompts than can be sent without holding up everybody."""
    if body.echo and body.logprobs is not None:
        n_told = (body.n or 1) * (1 + body.logprobs) * sum(map(len, prompts))
        if n_told > _MAX_TOLD:
            raise ApiError(
                400,
                f"a request may ask for {_MAX_TOLD} log-probabilities of its prompts (tokens times `n` times "
                f"1 + `logprobs`), got {n_told}; send fewer prompts at once",
                param="logprobs",
            )


def _plan(llama: Llama, body: CompletionBody, owner: str) -> tuple[list[list[int]], Constraint | None]:
    """Prompts as ids, and what the answers must be, ready for use."""
    constraint = constraint_of(body.response_format)
    if constraint is not None:
        llama.engine.prepare(constraint, owner)
    encode = llama.chat_format.encode_text
    return [encode(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompts()], constraint
