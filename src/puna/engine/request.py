"""The words of generation: what is asked of an engine and what it answers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from puna.constraints.forms import Constraint
from puna.errors import ConfigError

__all__ = [
    "Completion",
    "Event",
    "FinishReason",
    "Request",
    "SamplingOptions",
    "SamplingParams",
    "TokenLogprob",
    "Usage",
]

FinishReason = Literal["stop", "length", "cancelled"]
"""``stop``: a stop token or stop string; ``length``: ``max_tokens`` or the context; ``cancelled``."""


class SamplingOptions(TypedDict, total=False):
    """The keywords of `SamplingParams`, for calls that pass them on."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    stop: str | Sequence[str]
    stop_ids: Sequence[int]
    logit_bias: Mapping[int, float]
    logprobs: int | None
    ignore_eos: bool
    constraint: Constraint | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the next tokens are chosen, and when to stop.

    The order is: constraint, logit bias, penalties, temperature, then top-k, top-p and min-p on what is left.

    Attributes:
        max_tokens: at most so many new tokens; None: up to the end of the context.
        temperature: 0 takes the most likely token every time; up to 2. Default 0.6, as Meta ships
            Llama 3.
        top_k: only the k most likely tokens; 0: all.
        top_p: only the most likely tokens that together have this probability; 1: all. Default 0.9,
            as Meta ships Llama 3.
        min_p: only tokens at least this likely relative to the most likely one; 0: all.
        repetition_penalty: over prompt and answer: logits above 0 are divided by it, those below
            multiplied; 1: off.
        frequency_penalty: subtracted from a token's logit for every use in the answer; -2 to 2.
        presence_penalty: subtracted once from the logit of every token in the answer; -2 to 2.
        seed: the same seed, prompt and settings give the same tokens, whatever else runs; None draws
            one, which `Completion.seed` tells.
        stop: texts that end the answer and are not part of it; at most 16.
        stop_ids: tokens that end the answer, besides the model's own.
        logit_bias: added to the logits of these tokens; -100 to 100.
        logprobs: None: none; n: log-probabilities of the chosen tokens and of the n most likely
            alternatives, 0 to 20, from the model's own distribution before any of the above, and with a
            constraint from what that leaves of it.
        ignore_eos: go on after the model's own stop tokens (for benchmarks).
        constraint: what the answer may be; tokens that would lead out of it are never drawn, and the answer
            ends where nothing more can follow. None: anything.
    """

    max_tokens: int | None = None
    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    ignore_eos: bool = False
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        """Validate every field; ConfigError names the first that is out of range."""
        _check_whole("top_k", self.top_k, 0, 2**31 - 1)
        if self.max_tokens is not None:
            _check_whole("max_tokens", self.max_tokens, 1, 2**31 - 1)
        if self.seed is not None:
            _check_whole("seed", self.seed, 0, 2**64 - 1)
        if self.logprobs is not None:
            _check_whole("logprobs", self.logprobs, 0, 20)
        _check_number("temperature", self.temperature, 0, 2)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _check_number("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_number("presence_penalty", self.presence_penalty, -2, 2)
        for token, bias in self.logit_bias.items():
            _check_whole("logit_bias key", token, 0, 2**31 - 1)
            _check_number(f"logit_bias[{token}]", bias, -100, 100)
        for token in self.stop_ids:
            _check_whole("stop_ids", token, 0, 2**31 - 1)
        if self.constraint is not None and self.ignore_eos:
            raise ConfigError("`ignore_eos` goes on behind the end of an answer, which a `constraint` sets")
        stops = self.stop_texts if isinstance(self.stop, str | Sequence) else ("",)
        if len(stops) > 16 or not all(isinstance(text, str) and text for text in stops):
            raise ConfigError(f"`stop` must be at most 16 texts, none of them empty, got {self.stop!r:.200}")

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """`stop` as a tuple, where a single text was given too."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"`{name}` must be a whole number from {low} to {high}, got {value!r:.100}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"`{name}` must be a number from {low} to {high}, got {value!r:.100}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely the model found a token it gave.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability.
        top: the most likely tokens at this place with theirs, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a request cost.

    Attributes:
        prompt_tokens: length of the prompt.
        cached_tokens: how many of them were found in the prefix cache.
        completion_tokens: tokens generated, a stop token included.
        time_to_first_token_s: from submission to the first token, waiting included.
        decode_s: from the first token to the last.
        proposed_tokens: tokens that speculation guessed.
        accepted_tokens: those of them that were right, part of `completion_tokens`.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    time_to_first_token_s: float
    decode_s: float
    proposed_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def decode_tokens_per_s(self) -> float:
        """Speed after the first token, 0 where there is only one."""
        return (self.completion_tokens - 1) / self.decode_s if self.decode_s > 0 else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step gave, 1 without speculation."""
        return self.completion_tokens / max(1, self.completion_tokens - self.accepted_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A piece of an answer.

    Attributes:
        text: new text, whole characters; empty while a character or a possible stop text is incomplete.
        tokens: the new token ids, a stop token left out.
        logprobs: one for each of `tokens`, where asked for.
        stop_logprob: of the stop token that ended the answer, where asked for.
        finish_reason: set on the last event only.
        usage: set on the last event only.
        error: set on the last event where the engine failed.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        """Nothing follows this event."""
        return self.finish_reason is not None or self.error is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """A whole answer.

    Attributes:
        text: the text, stop text left out.
        tokens: the token ids, stop token left out.
        logprobs: one for each of `tokens`, where asked for.
        finish_reason: why it ended.
        usage: what it cost.
        seed: the seed it was drawn with; with the same settings it gives the same answer again.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason
    usage: Usage
    seed: int


@dataclass(eq=False, kw_only=True, slots=True)
class Request:
    """One generation, from submission to its last event.

    Attributes:
        prompt: token ids.
        params: how to sample.
        stop_ids: tokens after which the model itself has finished.
        sink: called with every event, in order, from the engine's thread; it must return at once.
        owner: whose it is; what is kept for others is not found. Default: everybody's.
        seed: `params.seed` or the one drawn for this request.
    """

    prompt: Sequence[int]
    params: SamplingParams
    stop_ids: frozenset[int]
    sink: Callable[[Event], None]
    owner: str = ""
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        """Fix the seed, so that it can be told."""
        self.seed = secrets.randbits(63) if self.params.seed is None else self.params.seed
