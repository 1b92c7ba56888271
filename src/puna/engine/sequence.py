"""One running request: its tokens, its place in the cache, and the text it has let out."""

from __future__ import annotations

import time
from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from puna.engine.blocks import digest_of_owner
from puna.engine.request import Event, FinishReason, Request, TokenLogprob, Usage
from puna.engine.speculation import Confidence
from puna.engine.stop import StopTexts
from puna.tokens import TextStream, Tokenizer

if TYPE_CHECKING:
    from puna import _native
    from puna.constraints import Matcher

__all__ = ["Sampled", "Sequence"]


class Sampled(Protocol):
    """A token as the native sampler gives it."""

    @property
    def token(self) -> int:
        """Its id."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability."""

    @property
    def top(self) -> list[tuple[int, float]]:
        """The most likely tokens at this place."""


class Sequence:
    """The state of a request between steps.

    Attributes:
        tokens: prompt and answer so far.
        n_computed: how many of them are in the cache.
        blocks: cache blocks, first position first.
        guess: tokens that the next step tries after the last true one.
        is_forced: they are what the constraint leaves no choice about.
        n_right: guessed tokens of the last step that became part of the answer.
        confidence: how well guesses go.
        matcher: follows the answer in its constraint, None where it has none.
    """

    def __init__(
        self,
        request: Request,
        sampler: _native.Sampler,
        tokenizer: Tokenizer,
        context_tokens: int,
        matcher: Matcher | None = None,
    ) -> None:
        """Prepare a request that has not been given any cache yet.

        Args:
            request: the request.
            sampler: picks its tokens.
            tokenizer: turns its tokens into text.
            context_tokens: positions that prompt and answer may take.
            matcher: of its constraint.
        """
        self.request = request
        self.sampler = sampler
        self.matcher = matcher
        self.tokens = list(request.prompt)
        self.n_computed = 0
        self.n_cached = 0
        self.blocks: list[int] = []
        self.block_table: NDArray[np.int32] = np.empty(0, np.int32)
        self.digest = digest_of_owner(request.owner)  # later of the last full block, the parent of the next
        self.n_remembered = 0  # blocks that the block manager knows by their contents
        self.guess: list[int] = []
        self.n_right = 0
        self.confidence = Confidence()
        self.is_forced = False
        self._n_proposed = 0
        self._n_accepted = 0
        self._n_prompt = len(self.tokens)
        limit = context_tokens - self._n_prompt
        wanted = request.params.max_tokens
        self._max_tokens = limit if wanted is None else min(wanted, limit)
        stops = set(request.params.stop_ids)
        if not request.params.ignore_eos:
            stops |= request.stop_ids
        self._stop_ids = stops
        self._text = TextStream(tokenizer)
        self._stop_texts = StopTexts(request.params.stop_texts)
        self._submitted_s = time.perf_counter()
        self._first_token_s: float | None = None
        self._n_generated = 0
        self._is_told = False  # the sink has its last event

    @property
    def max_length(self) -> int:
        """Positions that the sequence may come to take."""
        return self._n_prompt + self._max_tokens

    @property
    def has_begun(self) -> bool:
        """Whether a token of the answer has come."""
        return self._n_generated > 0

    @property
    def n_waiting(self) -> int:
        """Tokens that the next steps must put through the model."""
        return len(self.tokens) - self.n_computed

    @property
    def longest_guess(self) -> int:
        """Tokens that it may guess now: the step itself gives one more."""
        return min(self.confidence.length, self._room)

    @property
    def _room(self) -> int:
        return self._max_tokens - self._n_generated - 1

    def take_forced(self, limit: int) -> bool:
        """Guess what the constraint leaves no choice about, at most `limit` tokens; False for nothing."""
        if self.matcher is not None:
            self.guess = self.matcher.forced(min(limit, self._room))
            self.is_forced = bool(self.guess)
        return self.is_forced

    def take_guess(self, guess: list[int]) -> None:
        """Guess on as far as the constraint allows it."""
        self.guess = guess if self.matcher is None else self.matcher.permitted(guess)

    def accept(self, samples: Tokens[Sampled]) -> FinishReason | None:
        """Take the new tokens of a step and tell the sink what follows from them.

        Args:
            samples: the next token, and one more for every guessed token that was right.

        Returns:
            Why the sequence is finished, None where it goes on.
        """
        if self._first_token_s is None:
            self._first_token_s = time.perf_counter()
        if not self.is_forced:
            self.confidence.learn(len(self.guess), len(samples) - 1)
        self._n_proposed += len(self.guess)
        self.guess, self.is_forced = [], False
        text = ""
        tokens: list[int] = []
        logprobs: list[TokenLogprob] = []
        stop_logprob = None
        for self.n_right, sample in enumerate(samples):
            self._n_accepted += self.n_right > 0
            self._n_generated += 1
            reason, more = self._take(sample.token)
            text += more
            logprob = None
            if self.request.params.logprobs is not None:
                logprob = TokenLogprob(sample.token, sample.logprob, tuple(sample.top))
            if sample.token in self._stop_ids:
                stop_logprob = logprob
                break
            tokens.append(sample.token)
            if logprob is not None:
                logprobs.append(logprob)
            if reason is not None:
                break
        self._tell(
            Event(
                text=text,
                tokens=tuple(tokens),
                logprobs=tuple(logprobs),
                stop_logprob=stop_logprob,
                finish_reason=reason,
                usage=None if reason is None else self._usage(),
            )
        )
        return reason

    def cancel(self) -> None:
        """Tell the sink that the request was cancelled, with the text held back so far."""
        self._tell(Event(text=self._rest(), finish_reason="cancelled", usage=self._usage()))

    def fail(self, error: Exception) -> None:
        """Tell the sink that the request failed, unless it has its last event."""
        if not self._is_told:
            self._tell(Event(error=error))

    def _tell(self, event: Event) -> None:
        self.request.sink(event)
        self._is_told = event.is_last

    def _take(self, token: int) -> tuple[FinishReason | None, str]:
        """Whether a token ends the answer, and the text that may be let out with it."""
        if token in self._stop_ids:
            return "stop", self._rest()
        self.tokens.append(token)
        text, met_stop_text = self._stop_texts.push(self._text.push(token))
        if met_stop_text:
            return "stop", text
        if self.matcher is not None:
            self.matcher.take(token)
            if self.matcher.is_over:
                return "stop", text + self._rest()
        if self._n_generated >= self._max_tokens:
            return "length", text + self._rest()
        return None, text

    def _rest(self) -> str:
        """Text that was held back, up to a stop text in it."""
        text, met_stop_text = self._stop_texts.push(self._text.finish())
        return text if met_stop_text else text + self._stop_texts.finish()

    def _usage(self) -> Usage:
        now = time.perf_counter()
        first = now if self._first_token_s is None else self._first_token_s
        return Usage(
            prompt_tokens=self._n_prompt,
            cached_tokens=self.n_cached,
            completion_tokens=self._n_generated,
            time_to_first_token_s=first - self._submitted_s,
            decode_s=now - first,
            proposed_tokens=self._n_proposed,
            accepted_tokens=self._n_accepted,
        )
