"""Speculation: guess the next tokens of an answer, and let one step check them all.

The n-th token of a request depends on the tokens before it and on the n-th draw alone. So a step may put
guessed tokens through the model together with the last true one: the longest agreeing beginning of the
guess is kept, and the token after it comes with the same step. Answers are those there would be without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING, Protocol

from puna.errors import ConfigError, nearest

if TYPE_CHECKING:
    from puna.engine.sequence import Sequence

__all__ = ["SPECULATIONS", "Confidence", "Lookup", "NgramIndex", "Proposer", "proposer"]

SPECULATIONS = ("lookup", "off")
"""``lookup``: guess what followed the last tokens where they came before; ``off``: no guesses."""

_NGRAMS = (4, 3, 2)  # a longer match is the better guess; one token alone is none


class Proposer(Protocol):
    """Guesses the next tokens of running sequences."""

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """Guess for sequences that wait for a step with their last token.

        Args:
            wanted: sequences, each with the number of tokens to guess at the most, 1 or more.

        Returns:
            A guess for each, empty where there is none.
        """
        ...

    def forget(self, sequence: Sequence) -> None:
        """Let go of what is kept for a sequence, where there is anything."""
        ...


class Lookup:
    """Guesses by prompt lookup; implements `Proposer`."""

    def __init__(self) -> None:
        """Know no sequence yet."""
        self._indexes: dict[Sequence, NgramIndex] = {}

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """Guess what followed the last tokens of each sequence when they came before."""
        return [
            self._indexes.setdefault(sequence, NgramIndex()).propose(sequence.tokens, limit)
            for sequence, limit in wanted
        ]

    def forget(self, sequence: Sequence) -> None:
        """Let go of a sequence's index."""
        self._indexes.pop(sequence, None)


class NgramIndex:
    """Finds what followed the last tokens of a text when they came before: prompt lookup."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._n_read = 0
        # For each length: where what followed an n-gram begins, the latest place.
        self._after: dict[int, dict[tuple[int, ...], int]] = {n: {} for n in _NGRAMS}

    def propose(self, tokens: Tokens[int], limit: int) -> list[int]:
        """Guess what comes next.

        Args:
            tokens: prompt and answer so far; the same ones as in the last call, and new ones.
            limit: tokens to guess at the most.

        Returns:
            0 to `limit` tokens.
        """
        for n, after in self._after.items():
            for place in range(max(self._n_read, n), len(tokens)):
                after[tuple(tokens[place - n : place])] = place
        self._n_read = len(tokens)
        for n, after in self._after.items():
            if (found := after.get(tuple(tokens[-n:]))) is not None:
                return list(tokens[found : found + limit])
        return []


class Confidence:
    """How many guessed tokens are worth their rows, from how the last guesses went.

    A row more makes a step a little longer, and the k-th guessed token is of use if all before it are right.
    Where guesses fail there are none for a while, so that text that cannot be guessed costs nothing.
    """

    _START = 0.6  # chance that the next guessed token is right
    _RATE = 0.15
    _RECOVERY = 0.02  # a token that was not guessed
    _WORTH = 0.25  # a guessed token must be right with this chance
    _HIGHEST = 0.97

    def __init__(self) -> None:
        """Start hopeful."""
        self._chance = self._START

    @property
    def length(self) -> int:
        """Tokens to guess now, 0 or more."""
        return int(math.log(self._WORTH) / math.log(min(self._chance, self._HIGHEST)))

    def learn(self, n_proposed: int, n_accepted: int) -> None:
        """Take in how a step went, one without a guess too."""
        if n_proposed == 0:
            self._chance = max(self._chance, min(self._START, self._chance + self._RECOVERY))
            return
        for _ in range(n_accepted):
            self._chance += self._RATE * (1 - self._chance)
        if n_accepted < n_proposed:
            self._chance -= self._RATE * self._chance


def proposer(speculation: str) -> Proposer | None:
    """What guesses, by one of `SPECULATIONS`; None for ``off``.

    Raises:
        ConfigError: there is no such way to guess.
    """
    if speculation not in SPECULATIONS:
        raise ConfigError(f"speculation {speculation!r} is unknown; {nearest(speculation, SPECULATIONS)}")
    return Lookup() if speculation == "lookup" else None
