"""Guesses by a draft model: a smaller one of the same vocabulary runs ahead of the model that answers.

It draws with the answer's own draw numbers, so that both draw the same token wherever they agree on the
probabilities, at any temperature. Its keys and values lie in blocks of the same numbers as the answer's, in a
cache of its own; so a block that several answers share is computed once here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from puna.engine.scheduler import STEP_TOKENS

if TYPE_CHECKING:
    from puna import _native
    from puna.engine.blocks import BlockManager
    from puna.engine.sequence import Sequence

__all__ = ["Draft"]


@dataclass(slots=True)
class _Lead:
    """What the draft model has computed of a sequence.

    Attributes:
        n_true: positions that hold tokens of the answer.
        guessed: tokens in the positions behind them.
    """

    n_true: int
    guessed: list[int] = field(default_factory=list)

    def follow(self, tokens: list[int]) -> None:
        """Keep the guesses that have become part of the answer."""
        for token in self.guessed:
            if self.n_true == len(tokens) - 1 or tokens[self.n_true] != token:
                break
            self.n_true += 1
        self.guessed = []


@dataclass(slots=True)
class _Turn:
    """One sequence's guess in the making."""

    sequence: Sequence
    limit: int
    sampler: _native.Sampler
    position: int
    pending: list[int]
    guess: list[int] = field(default_factory=list)

    def take(self, sample: _native.Sample) -> None:
        """Go on with the guessed token, as far as it may."""
        if not sample.is_finite:
            return
        self.guess.append(sample.token)
        if len(self.guess) < self.limit:
            self.pending = [sample.token]


class Draft:
    """Runs a draft model; implements `Proposer`."""

    def __init__(self, runner: _native.Runner, blocks: BlockManager, max_seq_len: int) -> None:
        """Start with nothing computed.

        Args:
            runner: of the draft model, with a cache of as many blocks as `blocks` hands out.
            blocks: knows what the answers' blocks hold.
            max_seq_len: positions that the draft model was made for; beyond them it guesses nothing.
        """
        self._runner = runner
        self._blocks = blocks
        self._max_seq_len = max_seq_len
        self._leads: dict[Sequence, _Lead] = {}
        self._digests: dict[int, bytes] = {}  # of what finished sequences left in a block

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """Draw from the draft model, for all sequences at once."""
        turns = [self._turn(sequence, limit) for sequence, limit in wanted]
        while any(turn.pending for turn in turns):
            self._step([turn for turn in turns if turn.pending])
        for turn in turns:
            self._leads[turn.sequence].guessed = turn.guess[:-1]  # the last one was not put through it
        return [turn.guess for turn in turns]

    def forget(self, sequence: Sequence) -> None:
        """Let go of a sequence; what its blocks hold stays of use as long as they hold it."""
        lead = self._leads.pop(sequence, None)
        n_full = 0 if lead is None else lead.n_true // self._blocks.block_tokens
        for i, block in enumerate(sequence.blocks):
            digest = self._blocks.digest_of(block)
            if i < n_full and digest is not None:
                self._digests[block] = digest
            else:
                self._digests.pop(block, None)

    def _turn(self, sequence: Sequence, limit: int) -> _Turn:
        tokens = sequence.tokens
        lead = self._leads.get(sequence)
        if lead is None:
            lead = self._leads[sequence] = _Lead(min(self._n_left_over(sequence), len(tokens) - 1))
        if len(tokens) + limit > self._max_seq_len:
            return _Turn(sequence, 0, sequence.sampler, 0, [])
        lead.follow(tokens)
        turn = _Turn(sequence, limit, sequence.sampler.copy(), lead.n_true, tokens[lead.n_true :])
        lead.n_true = len(tokens)
        return turn

    def _n_left_over(self, sequence: Sequence) -> int:
        """Positions that sequences before this one have left computed."""
        n_blocks = 0
        for block in sequence.blocks:
            digest = self._blocks.digest_of(block)
            if digest is None or self._digests.get(block) != digest:
                break
            n_blocks += 1
        return n_blocks * self._blocks.block_tokens

    def _step(self, turns: list[_Turn]) -> None:
        tokens: list[int] = []
        slices: list[tuple[int, int]] = []
        output_rows: list[int] = []
        tables = np.zeros((len(turns), max(len(turn.sequence.blocks) for turn in turns)), np.int32)
        for turn in turns:
            n = min(len(turn.pending), STEP_TOKENS - len(tokens))
            if n == 0:
                break
            tables[len(slices), : len(turn.sequence.blocks)] = turn.sequence.block_table
            tokens += turn.pending[:n]
            slices.append((n, turn.position))
            turn.position += n
            del turn.pending[:n]
            if not turn.pending:
                output_rows.append(len(tokens) - 1)
        sampled = [turn for turn in turns if not turn.pending]
        samples = self._runner.sample(
            np.array(tokens, np.int32),
            np.array(slices, np.int64),
            tables[: len(slices)],
            np.array(output_rows, np.int64),
            [turn.sampler for turn in sampled],
        )
        for turn, picked in zip(sampled, samples, strict=True):
            turn.take(picked[0])
