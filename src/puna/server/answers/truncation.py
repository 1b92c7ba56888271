"""Conversations that do not fit: without their oldest messages, where a client asks for that."""

from __future__ import annotations

from collections.abc import Sequence

from puna.llama import Llama
from puna.server.answers.conversation import ChatPlan, plan_chat
from puna.server.schemas.chat import ChatBody, Message, SystemMessage, UserMessage

__all__ = ["plan_truncated"]

_ANSWER_SHARE = 4  # of the context, a fourth is left for an answer that may have any length


def plan_truncated(llama: Llama, body: ChatBody, owner: str) -> ChatPlan:
    """Encode a conversation, with as many of its newest messages as fit.

    What is kept begins with a message of the user, so that no result loses its call; standing instructions
    stay. Where not even the last such part fits, the plan is too long, and submitting it is an error.

    Args:
        llama: the model.
        body: the request.
        owner: see `plan_chat`.

    Raises:
        PromptFormatError: see `plan_chat`.
    """
    context = llama.engine.context_tokens
    n_answer = body.max_completion_tokens or body.max_tokens or context // _ANSWER_SHARE
    plan = plan_chat(llama, body, owner)
    if len(plan.prompt) + n_answer <= context:
        return plan
    # Where the conversation may begin; the first place is the whole.
    starts = [i for i, message in enumerate(body.messages) if isinstance(message, UserMessage)][1:]
    low, high = 0, len(starts)
    while low < high:  # the first place from which on it fits
        middle = (low + high) // 2
        kept = body.model_copy(update={"messages": _from(body.messages, starts[middle])})
        shorter = plan_chat(llama, kept, owner)
        if len(shorter.prompt) + n_answer <= context:
            plan, high = shorter, middle
        else:
            low = middle + 1
            if low == len(starts):
                plan = shorter
    return plan


def _from(messages: Sequence[Message], start: int) -> list[Message]:
    standing = [message for message in messages[:start] if isinstance(message, SystemMessage)]
    return [*standing, *messages[start:]]
