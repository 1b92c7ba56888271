"""Tokens and their log-probabilities as clients see them."""

from __future__ import annotations

from collections.abc import Sequence

from puna.engine.request import TokenLogprob
from puna.server.answers.text_offsets import TextOffsets
from puna.server.schemas.chat import ChatLogprobs, LogprobEntry, TokenChance
from puna.server.schemas.completions import CompletionLogprobs
from puna.tokens import Tokenizer

__all__ = ["chat_logprobs", "completion_logprobs", "prompt_logprobs"]

_LOWEST = -9999.0  # JSON has no infinity; OpenAI's own word for "hardly ever"


def chat_logprobs(tokenizer: Tokenizer, entries: Sequence[TokenLogprob]) -> ChatLogprobs:
    """Log-probabilities in the form of chat completions."""
    return ChatLogprobs(
        content=[
            LogprobEntry(
                **_chance(tokenizer, entry.token, entry.logprob).model_dump(),
                top_logprobs=[_chance(tokenizer, token, logprob) for token, logprob in entry.top],
            )
            for entry in entries
        ],
        refusal=None,
    )


def completion_logprobs(
    tokenizer: Tokenizer, entries: Sequence[TokenLogprob], offsets: TextOffsets
) -> CompletionLogprobs:
    """Log-probabilities in the form of plain completions.

    Args:
        tokenizer: the model's.
        entries: of the tokens.
        offsets: where they begin.
    """
    return CompletionLogprobs(
        tokens=[_name(tokenizer, entry.token) for entry in entries],
        token_logprobs=[max(entry.logprob, _LOWEST) for entry in entries],
        top_logprobs=[_top(tokenizer, entry) for entry in entries],
        text_offset=[offsets.of(entry.token) for entry in entries],
    )


def prompt_logprobs(
    tokenizer: Tokenizer, ids: Sequence[int], scores: Sequence[TokenLogprob], offsets: TextOffsets
) -> CompletionLogprobs:
    """Log-probabilities of a prompt's tokens, of which the first has none.

    Args:
        tokenizer: the model's.
        ids: the prompt.
        scores: of every token but the first.
        offsets: where they begin.
    """
    return CompletionLogprobs(
        tokens=[_name(tokenizer, token) for token in ids],
        token_logprobs=[None, *(max(score.logprob, _LOWEST) for score in scores)],
        top_logprobs=[None, *(_top(tokenizer, score) for score in scores)],
        text_offset=[offsets.of(token) for token in ids],
    )


def _top(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens and the one that stands there by name, as OpenAI has them.

    Where parts of characters have the same name, it is the likeliest of them.
    """
    chances = [(entry.token, entry.logprob), *reversed(entry.top)]
    return {_name(tokenizer, token): max(logprob, _LOWEST) for token, logprob in chances}


def _chance(tokenizer: Tokenizer, token: int, logprob: float) -> TokenChance:
    return TokenChance(
        token=_name(tokenizer, token),
        logprob=max(logprob, _LOWEST),
        bytes=list(tokenizer.token_bytes(token)),
    )


def _name(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode([token], show_special=True)
