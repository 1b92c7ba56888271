"""Plain completions, as OpenAI's API has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from puna.server.schemas.base import Reply, absent
from puna.server.schemas.sampling import Sampling
from puna.server.schemas.usage import Usage

__all__ = ["Completion", "CompletionBody", "CompletionChoice", "CompletionLogprobs"]

MAX_PROMPTS = 256

Ids = Annotated[
    list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=2**18, fail_fast=True)
]


class CompletionBody(Sampling):
    """Texts to go on with."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    ) = Field(description="A text or its token ids, or a list of such; each is completed by itself.")
    max_tokens: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Default 16, as OpenAI has it; 0 with `echo`: the prompt alone."
    )
    echo: bool | None = Field(None, description="Send the prompt in front of the answer.")
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: Literal[1] | None = Field(None, description="Only 1: what is computed is sent.")
    suffix: Annotated[
        Literal[""] | None, absent("Llama models do not fill in between a prompt and a suffix", "")
    ] = None

    @model_validator(mode="after")
    def _wants_something(self) -> CompletionBody:
        if self.max_tokens == 0 and not self.echo:
            raise PydanticCustomError(
                "nothing_asked", "`max_tokens` of 0 asks for nothing without `echo`; ask for 1 or more"
            )
        return self

    @property
    def n_wanted(self) -> int:
        """Answers that are to be generated."""
        return 0 if self.max_tokens == 0 else (self.n or 1) * len(self.prompts())

    def prompts(self) -> list[str] | list[list[int]]:
        """What to complete, one after the other."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return prompt


class CompletionLogprobs(Reply):
    """Log-probabilities of an answer's tokens."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Reply):
    """One answer; in a stream, more of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(Reply):
    """All answers; in a stream, an event of it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str
