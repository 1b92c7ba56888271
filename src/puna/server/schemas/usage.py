"""What an answer cost."""

from __future__ import annotations

from collections.abc import Sequence

from puna.engine import request as engine
from puna.server.schemas.base import Reply

__all__ = ["PromptTokensDetails", "Usage", "usage_of"]


class PromptTokensDetails(Reply):
    """Parts of the prompt."""

    cached_tokens: int


class Usage(Reply):
    """Tokens of a request; those of the prompt count once, whatever `n` is."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_of(answers: Sequence[engine.Usage], *, n: int = 1) -> Usage:
    """The usage of a request.

    Args:
        answers: of every answer, those to the same prompt side by side.
        n: answers a prompt.
    """
    prompt = sum(usage.prompt_tokens for usage in answers[::n])
    completion = sum(usage.completion_tokens for usage in answers)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=sum(usage.cached_tokens for usage in answers[::n])
        ),
    )
