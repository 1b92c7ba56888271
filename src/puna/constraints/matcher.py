"""How far an answer has come in its constraint, and which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import thread_time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from puna.constraints.grammar import one_line
from puna.constraints.json_ends import JsonEnds
from puna.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["MAX_DELAY_S", "MAX_MASK_S", "Matcher"]

# The library bounds what a parse holds and not what it takes to compute it, which in an ambiguous grammar is
# up to a hundred times as much. Masks of other grammars take up to 10 ms.
MAX_MASK_S = 0.05
"""CPU time of a mask, on the average."""

MAX_DELAY_S = 0.1
"""By how much masks in a row may take longer."""


class Matcher:
    """Follows one answer, token by token. Not thread-safe.

    Masks are rows of uint32 words with a bit a token, from the lowest on.

    Attributes:
        error: why it can go no further, None while it can.
    """

    def __init__(
        self,
        grammar: LLMatcher,
        end: int,
        stop_ids: Iterable[int],
        on_error: Callable[[], None],
        ends: JsonEnds | None = None,
    ) -> None:
        """Start before an answer; `Compiler.matcher` is the usual way to get one.

        Args:
            grammar: a matcher of the library that nobody else uses.
            end: the id behind the vocabulary whose bit says that the answer may end.
            stop_ids: tokens that end an answer; they may come where it may end.
            on_error: is called when the constraint has run into a limit.
            ends: ends what is too long, where the answer is JSON.
        """
        self._grammar = grammar
        self._end = end
        self._stop_ids = tuple(stop_ids)
        self._on_error = on_error
        self._ends = ends
        self._delay_s = 0.0
        self.error: ConstraintError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow but the end of the answer."""
        return self._grammar.is_stopped()

    def forced(self, limit: int) -> list[int]:
        """Tokens that come next whatever the model says, at most so many; maybe none."""
        return self._grammar.compute_ff_tokens()[:limit] if limit > 0 else []

    def permitted(self, guess: list[int]) -> list[int]:
        """The beginning of a guess that masks would allow, the end of the answer left out."""
        n = 0
        for token in guess:
            if not (self._may_follow(token) and self._grammar.consume_token(token)):
                break
            n += 1
        if n:
            self._grammar.rollback(n)
        return guess[:n]

    def is_exact(self, guess: list[int]) -> bool:
        """Whether `allows` says what `fill` would, here and after each token of a guess."""
        return self._ends is None or not self._ends.restricts(guess)

    def allows(self, tokens: list[int]) -> bool:
        """Whether tokens may come next, one after the other; False also where only a mask can tell."""
        if tokens[-1] in self._stop_ids:
            return len(tokens) == 1 and self._grammar.is_accepting()
        return self.permitted(tokens) == tokens

    def fill(self, masks: NDArray[np.uint32], guess: list[int]) -> None:
        """Say what may come next, and what after each token of a guess.

        Args:
            masks: ``[1 + guess, words]``, rows in C order, to be filled.
            guess: tokens as `permitted` or `forced` gave them.
        """
        started_s = thread_time()
        row_bytes = masks.shape[1] * masks.itemsize
        if guess:
            with_guess = self._grammar.unsafe_compute_mask_ptr_with_draft_token  # type: ignore[attr-defined]
            with_guess(masks.ctypes.data, row_bytes, guess)
        else:
            self._grammar.unsafe_compute_mask_ptr(masks.ctypes.data, row_bytes)
        self._delay_s = max(self._delay_s + thread_time() - started_s - len(masks) * MAX_MASK_S, 0)
        if self._grammar.is_error():
            self._fail(self._grammar.get_error())
        elif self._delay_s > MAX_DELAY_S:
            self._fail("it takes too long to find what may come next")
        may_end = masks[:, self._end // 32] >> (self._end % 32) & 1
        for token in self._stop_ids:
            bit = np.uint32(1 << token % 32)
            masks[:, token // 32] = (masks[:, token // 32] & ~bit) | (may_end * bit)
        if self._ends is not None:
            self._ends.restrict(masks, guess)

    def take(self, token: int) -> None:
        """Go on by a token of the answer, one that its mask allowed.

        Raises:
            ConstraintError: the constraint does not allow it, or has run into a limit.
        """
        if not self._grammar.consume_token(token):
            raise self._fail(self._grammar.get_error())
        if self._ends is not None:
            self._ends.take(token)

    def _may_follow(self, token: int) -> bool:
        # Where a token is forced, a mask has no other, but `validate_tokens` takes what its text begins with.
        forced = self.forced(1)
        return forced == [token] if forced else self._grammar.validate_tokens([token]) == 1

    def _fail(self, reason: str) -> ConstraintError:
        self._on_error()
        self.error = ConstraintError(
            f"the constraint cannot be followed further: {one_line(reason):.200}; make it simpler"
        )
        return self.error
