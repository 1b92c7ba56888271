"""Fields by which chat and plain completion say how tokens are drawn."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from puna.constraints.forms import Constraint
from puna.engine.request import SamplingParams
from puna.server.schemas.base import Body, ModelName, needs
from puna.server.schemas.response_format import ResponseFormat

__all__ = ["MAX_CHOICES", "MAX_STOP", "Drawing", "Sampling", "StreamOptions"]

MAX_CHOICES = 16
"""Answers to one prompt."""
MAX_STOP = 16
"""Texts that end an answer."""
_MAX_BIASES = 1024
_SEEDS = 2**64

StopText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
TokenId = Annotated[str, StringConstraints(pattern=r"^\d{1,9}$")]


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool | None = Field(None, description="Send a last chunk with `usage` and no choices.")
    include_obfuscation: bool | None = Field(None, description="Taken and without effect.")


class Drawing(Body):
    """How tokens are drawn, as OpenAI's API and Puna's own have it."""

    temperature: float | None = Field(
        None, ge=0, le=2, description="Default 0.6; 0 takes the likeliest token."
    )
    top_p: float | None = Field(None, ge=0, le=1, description="Default 0.9.")
    top_k: int | None = Field(None, ge=0, le=2**31 - 1, description="Only the k likeliest tokens; 0: all.")
    min_p: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Only tokens with this share of the likeliest one's probability; 0: all.",
    )
    repetition_penalty: float | None = Field(
        None,
        ge=0.01,
        le=100,
        description="Above 1 makes tokens less likely that prompt or answer has; 1: off.",
    )
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="Off a token's logit for each time that the answer has it; 0: off."
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="Off a token's logit where the answer has it; 0: off."
    )
    seed: int | None = Field(
        None, ge=-(2**63), le=2**64 - 1, description="The same seed and request give the same answer."
    )


class Sampling(Drawing, ModelName):
    """Sampling in full, for chat and plain completion."""

    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=_MAX_BIASES, description="Added to the logits of tokens, by their ids."
    )
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="How many answers; default 1.")
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOP, fail_fast=True)] | None = Field(
        None, description="Texts before which the answer ends; none of them is looked for in a call."
    )
    response_format: ResponseFormat | None = Field(None, description="What the answer must be.")
    stream: bool | None = Field(None, description="Send the answer as it comes, as events.")
    stream_options: Annotated[StreamOptions | None, needs("stream", "`stream: true`")] = None
    user: str | None = Field(None, max_length=512, description="Taken and without effect.")

    @property
    def stop_texts(self) -> list[str]:
        """`stop` as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def biases(self) -> dict[int, float]:
        """`logit_bias` by ids."""
        return {int(token): bias for token, bias in (self.logit_bias or {}).items()}

    def params(
        self, choice: int, *, max_tokens: int | None, logprobs: int | None, constraint: Constraint | None
    ) -> SamplingParams:
        """What the engine is told.

        Args:
            choice: which of `n` answers; each has a seed of its own, the first the one that was given.
            max_tokens: at most so many tokens.
            logprobs: how many alternatives to tell, None for no log-probabilities.
            constraint: what the answer must be.

        Raises:
            ConfigError: a value is out of range.
        """
        names: tuple[str, ...] = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        names += ("frequency_penalty", "presence_penalty")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return SamplingParams(
            **given,
            logit_bias=self.biases,
            seed=None if self.seed is None else (self.seed + choice) % _SEEDS,
            stop=self.stop_texts,
            max_tokens=max_tokens,
            logprobs=logprobs,
            constraint=constraint,
        )
