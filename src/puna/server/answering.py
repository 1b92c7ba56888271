"""From the body of a chat request to running answers: what all routes share that answer a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from puna.server.answers.choices import Choices
from puna.server.answers.conversation import is_quick, plan_chat
from puna.server.answers.generation import Wanted
from puna.server.answers.truncation import plan_truncated
from puna.server.errors import about
from puna.server.hosting.hosted import Loaded
from puna.server.schemas.chat import ChatBody
from puna.server.services import Services

__all__ = ["answering", "count_tokens"]


@asynccontextmanager
async def answering(
    services: Services, body: ChatBody, client: str, *, truncates: bool = False
) -> AsyncIterator[Choices]:
    """Have the model in memory during an ``async with`` block, and its answers prepared.

    Args:
        services: the server's.
        body: the conversation and how to answer it.
        client: who asks, for fair turns.
        truncates: leave out the oldest messages where not all fit.

    Raises:
        ApiError: 400, see `plan_chat`, or `logit_bias` has ids outside the vocabulary; 404, there is no such
            model; 429, too many answers wait; 503, it cannot be loaded.
        PromptFormatError: the messages or tools are not such as this model takes.
        ConstraintError: an answer cannot be held to what is asked for.
    """
    async with services.pool.use(body.model) as model:
        with about("logit_bias"):
            model.llama.engine.check_ids(body.biases)
        n = body.n or 1
        model.admission.check(client, n)
        planning = plan_truncated if truncates else plan_chat
        owner = services.owner_of(client)
        # A long conversation takes a while, and for a short one the way to a thread would be longer.
        if is_quick(body):
            plan = planning(model.llama, body, owner)
        else:
            plan = await asyncio.to_thread(planning, model.llama, body, owner)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        max_tokens = body.max_completion_tokens or body.max_tokens
        params = [
            body.params(i, max_tokens=max_tokens, logprobs=logprobs, constraint=plan.constraint)
            for i in range(n)
        ]
        if plan.tools:  # the engine cannot tell text from calls, so `Choices` looks for stop texts
            params = [replace(each, stop=()) for each in params]
        yield Choices(
            services.generate(model, [Wanted(plan.prompt, each) for each in params], client),
            model.llama.tokenizer,
            plan.tools,
            n=n,
            n_prompt_tokens=len(plan.prompt),
            stop_texts=body.stop_texts,
            allows_several_calls=body.parallel_tool_calls is not False,
            must_call=plan.must_call,
        )


async def count_tokens(model: Loaded, body: ChatBody, owner: str) -> int:
    """How many tokens a conversation's prompt has; arguments and errors as for `plan_chat`."""
    return len((await asyncio.to_thread(plan_chat, model.llama, body, owner)).prompt)
