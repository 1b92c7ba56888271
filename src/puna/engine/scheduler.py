"""What the next step computes: a token and guesses of every answer, and as much of waiting prompts as fits.

A request is admitted when the cache has room for its longest possible answer, in the order of arrival;
so nothing that runs is ever stopped for lack of memory. Short prompts do not wait for long ones, and answers
for no long step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.engine.blocks import BlockManager
from puna.engine.pace import Pace
from puna.engine.sequence import Sequence
from puna.engine.speculation import Proposer

__all__ = ["STEP_TOKENS", "Scheduler", "Step"]

STEP_TOKENS = 256
"""Tokens of a step at the start of a text: enough for an efficient matrix product, few enough to cancel."""

_GUESS_ROWS = 16  # rows of a step with guesses: up to here one costs much less than a step of its own


@dataclass(frozen=True, slots=True)
class Step:
    """The input of one step of the native runner.

    S sequences, T tokens, R output rows.

    Attributes:
        sequences: those with tokens in this step, [S].
        tokens: int32 [T], of all sequences one after the other.
        slices: int64 [S, 2], number of tokens and first position of each.
        block_tables: int32 [S, most blocks].
        output_rows: int64 [R], rows of `tokens` whose next token is wanted: the last true one of a sequence
            and the guessed ones behind it.
        sampled: the sequences that those rows belong to, each once.
    """

    sequences: list[Sequence]
    tokens: NDArray[np.int32]
    slices: NDArray[np.int64]
    block_tables: NDArray[np.int32]
    output_rows: NDArray[np.int64]
    sampled: list[Sequence]


class Scheduler:
    """Queues sequences, gives them cache blocks, and packs steps. Not thread-safe."""

    def __init__(self, blocks: BlockManager, step_tokens: int, pace: Pace, proposer: Proposer | None) -> None:
        """Start empty.

        Args:
            blocks: the cache.
            step_tokens: tokens a step has at the most, answers of running sequences aside.
            pace: how many fewer they are deep in a text.
            proposer: guesses tokens; None for a token of each answer a step.
        """
        self.blocks = blocks
        self._step_tokens = step_tokens
        self._pace = pace
        self._proposer = proposer
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def all(self) -> list[Sequence]:
        """Every sequence, waiting or running."""
        return [*self._running, *self._waiting]

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and free its blocks."""
        if sequence in self._running:
            self._running.remove(sequence)
            if self._proposer is not None:
                self._proposer.forget(sequence)
            self.blocks.release(sequence.blocks)
            sequence.blocks = []
        else:
            self._waiting.remove(sequence)

    def next_step(self) -> Step | None:
        """Admit what fits and pack a step; None where there is nothing to do."""
        while self._waiting and self._admit(self._waiting[0]):
            self._running.append(self._waiting.popleft())
        self._guess()
        # Answers first, so that a long prompt does not hold them up.
        parts = [(sequence, 1) for sequence in self._running if sequence.n_waiting == 1]
        prompts = [sequence for sequence in self._running if sequence.n_waiting > 1]
        parts += self._shared(prompts, self._step_tokens - len(parts))
        return _pack(parts) if parts else None

    def advance(self, sequence: Sequence, n_tokens: int) -> None:
        """Note that a step has computed so many more tokens of a sequence."""
        sequence.n_computed += n_tokens
        size = self.blocks.block_tokens
        while (sequence.n_remembered + 1) * size <= sequence.n_computed:
            start = sequence.n_remembered * size
            sequence.digest = self.blocks.remember(
                sequence.blocks[sequence.n_remembered], sequence.digest, sequence.tokens[start : start + size]
            )
            sequence.n_remembered += 1

    def _guess(self) -> None:
        """Guess on for the answers of the next step, for fewer tokens the more of them there are."""
        answers = [sequence for sequence in self._running if sequence.n_waiting == 1]
        if self._proposer is None or not answers:
            return
        room = _GUESS_ROWS // len(answers) - 1
        open_ended = [sequence for sequence in answers if not sequence.take_forced(room)]
        wanted = [(sequence, min(room, sequence.longest_guess)) for sequence in open_ended]
        wanted = [(sequence, limit) for sequence, limit in wanted if limit > 0]
        for (sequence, _), guess in zip(wanted, self._proposer.propose(wanted), strict=True):
            sequence.take_guess(guess)

    def _shared(self, prompts: list[Sequence], n_tokens: int) -> list[tuple[Sequence, int]]:
        """How many tokens of each prompt a step computes: half are the oldest's, the others the shortest's.

        Who asks little is answered soon, and a long prompt goes on however many short ones come.
        """
        if not prompts or n_tokens <= 0:
            return []
        oldest = prompts[0]
        given = {oldest: min(oldest.n_waiting, self._pace.next(-(-n_tokens // 2), oldest.n_computed))}
        room = n_tokens - self._pace.cost(given[oldest], oldest.n_computed)
        for sequence in sorted(prompts, key=lambda s: s.n_waiting):
            n_before = given.get(sequence, 0)
            position = sequence.n_computed + n_before
            n_more = min(sequence.n_waiting - n_before, self._pace.tokens(room, position))
            if n_more > 0:
                given[sequence] = n_before + n_more
                room -= self._pace.cost(n_more, position)
        return list(given.items())

    def _admit(self, sequence: Sequence) -> bool:
        shared = self.blocks.find_prefix(sequence.tokens, sequence.digest)
        n_new = self.blocks.blocks_for(sequence.max_length) - len(shared)
        blocks = self.blocks.acquire(shared, n_new)
        if blocks is None:
            return False
        sequence.blocks = blocks
        sequence.block_table = np.asarray(blocks, np.int32)
        self.advance(sequence, len(shared) * self.blocks.block_tokens)
        sequence.n_cached = sequence.n_computed
        return True


def _pack(parts: list[tuple[Sequence, int]]) -> Step:
    """Put slices together; a part is a sequence and the number of its true tokens."""
    tokens: list[int] = []
    slices: list[tuple[int, int]] = []
    output_rows: list[int] = []
    sampled: list[Sequence] = []
    tables = np.zeros((len(parts), max(len(sequence.blocks) for sequence, _ in parts)), np.int32)
    for row, (sequence, n) in zip(tables, parts, strict=True):
        first = len(tokens)
        tokens += sequence.tokens[sequence.n_computed : sequence.n_computed + n]
        if n == sequence.n_waiting:  # a prompt that is not through yet gives no token
            tokens += sequence.guess
            output_rows += range(first + n - 1, len(tokens))
            sampled.append(sequence)
        slices.append((len(tokens) - first, sequence.n_computed))
        row[: len(sequence.blocks)] = sequence.block_table
    return Step(
        sequences=[sequence for sequence, _ in parts],
        tokens=np.array(tokens, np.int32),
        slices=np.array(slices, np.int64),
        block_tables=tables,
        output_rows=np.array(output_rows, np.int64),
        sampled=sampled,
    )
