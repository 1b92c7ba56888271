"""Which tokens the output rows of a step may give, where constraints say so.

A mask may take longer than all else in a step but the model. So an answer that takes the likeliest token
takes it from all of them first, and a mask is made only where it would not have that one: the answer is the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from puna import _native
    from puna.engine.request import SamplingParams
    from puna.engine.scheduler import Step
    from puna.engine.sequence import Sequence

__all__ = ["Masks"]


class Masks:
    """Those of one step.

    Attributes:
        words: a bit a token, ``[output rows, words]``; None where all tokens are allowed.
    """

    def __init__(self, step: Step, n_words: int) -> None:
        """Make those that have to be there before the step.

        Args:
            step: what is to be computed.
            n_words: words of a mask.
        """
        self.words: NDArray[np.uint32] | None = None
        self._n_words = n_words
        self._n_rows = len(step.output_rows)
        self._late: list[tuple[int, int, Sequence]] = []  # place in the step, first row
        row = 0
        for place, sequence in enumerate(step.sampled):
            if sequence.matcher is not None:
                self._begin(sequence, place, row)
            row += 1 + len(sequence.guess)

    def correct(self, runner: _native.Runner, samples: list[list[_native.Sample]]) -> None:
        """Pick again where what was picked is not allowed.

        Args:
            runner: has computed the step.
            samples: what it picked for each sequence; changed in place.
        """
        for place, first_row, sequence in self._late:
            picked, matcher = samples[place], sequence.matcher
            assert matcher is not None
            # All but the last were guessed, and guesses are allowed.
            if not picked[-1].is_finite or matcher.allows([sample.token for sample in picked]):
                continue
            n_right = len(picked) - 1
            masks = np.empty((1 + n_right, self._n_words), np.uint32)
            matcher.fill(masks, sequence.guess[:n_right])
            if matcher.error is None:
                picked[-1] = runner.pick_again(first_row + n_right, sequence.sampler, masks[-1])

    def _begin(self, sequence: Sequence, place: int, row: int) -> None:
        matcher, guess = sequence.matcher, sequence.guess
        assert matcher is not None
        if not (_takes_likeliest(sequence.request.params) and matcher.is_exact(guess)):
            matcher.fill(self._rows(row, 1 + len(guess)), guess)
            return
        self._late.append((place, row, sequence))
        if sequence.is_forced:
            rows = self._rows(row, len(guess))
            rows[:] = 0
            for mask, token in zip(rows, guess, strict=True):
                mask[token // 32] = 1 << token % 32

    def _rows(self, first: int, n: int) -> NDArray[np.uint32]:
        if self.words is None:
            self.words = np.full((self._n_rows, self._n_words), 0xFFFFFFFF, np.uint32)
        return self.words[first : first + n]


def _takes_likeliest(params: SamplingParams) -> bool:
    """Whether every token is the most likely one to the model itself, and nothing else is asked."""
    has_penalties = params.repetition_penalty != 1 or params.frequency_penalty or params.presence_penalty
    return not (params.temperature or has_penalties or params.logit_bias) and params.logprobs is None
