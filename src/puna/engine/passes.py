"""Passes over a text that draw no tokens: embeddings, scores and logits.

A step of the engine computes a slice of one of them, each in its turn, so that answers go on meanwhile. Short
slices of several go together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from puna import _native
from puna.engine.blocks import BlockManager
from puna.engine.pace import Pace
from puna.engine.request import TokenLogprob
from puna.engine.scheduler import STEP_TOKENS

__all__ = ["Logits", "MeanHidden", "Pass", "Passes", "Reader", "Scores"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Tokens, slices, block tables and output rows, as in `puna.engine.scheduler.Step`: all rows are wanted.
_Batch = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]


class Reader(Protocol[T_co]):
    """What a pass makes of the model's numbers.

    Attributes:
        reads_logits: it reads logits, ``[tokens, vocabulary]``; else final hidden states, ``[tokens, dim]``.
        slice_tokens: tokens that it wants at a time, at the start of a text.
    """

    reads_logits: bool
    slice_tokens: int

    def read(self, rows: NDArray[np.float32]) -> None:
        """Take what is wanted from those of the next slice."""
        ...

    def result(self) -> T_co:
        """What was wanted, after the last slice."""
        ...


class MeanHidden:
    """The mean of the final hidden states, float32 ``[dim]``."""

    reads_logits = False
    slice_tokens = STEP_TOKENS

    def __init__(self, dim: int) -> None:
        """Start with nothing.

        Args:
            dim: size of a hidden state.
        """
        self._total = np.zeros(dim, np.float64)
        self._n_tokens = 0

    def read(self, rows: NDArray[np.float32]) -> None:
        """Add those of a slice."""
        self._total += np.asarray(rows, np.float64).sum(axis=0)
        self._n_tokens += len(rows)

    def result(self) -> NDArray[np.float32]:
        """The mean."""
        return (self._total / self._n_tokens).astype(np.float32)


class Scores:
    """How likely the model finds every token after the first."""

    reads_logits = True
    slice_tokens = 64  # logits are the largest numbers of a model: 32 MiB, with 128,256 words

    def __init__(self, tokens: Sequence[int], n_top: int, left_out: Sequence[int]) -> None:
        """Start with nothing.

        Args:
            tokens: the text.
            n_top: of how many of the likeliest tokens to tell at each place.
            left_out: ids that are never picked, and have no part in the probabilities.
        """
        self._tokens = tokens
        self._n_top = n_top
        self._left_out = np.array(left_out, np.int64)
        self._found: list[TokenLogprob] = []

    def read(self, rows: NDArray[np.float32]) -> None:
        """Score what comes after each token of a slice; nothing comes after the text's last one."""
        rows[:, self._left_out] = -np.inf
        first = len(self._found) + 1
        for row, token in zip(rows, self._tokens[first : first + len(rows)], strict=False):
            self._found.append(_scored(row, token, self._n_top))

    def result(self) -> list[TokenLogprob]:
        """One for every token after the first."""
        return self._found


class Logits:
    """Logits at every position, float32 ``[tokens, vocabulary]``."""

    reads_logits = True
    slice_tokens = STEP_TOKENS

    def __init__(self) -> None:
        """Start with nothing."""
        self._parts: list[NDArray[np.float32]] = []

    def read(self, rows: NDArray[np.float32]) -> None:
        """Keep those of a slice."""
        self._parts.append(rows)

    def result(self) -> NDArray[np.float32]:
        """All of them."""
        return np.concatenate(self._parts)


class Pass(Generic[T]):
    """One pass over one text.

    Attributes:
        future: has the result in the end; once it is cancelled, nothing more is computed for it.
        reader: gives the result.
        n_tokens: length of the text.
        n_computed: how many of its tokens are through the model.
        blocks: of the cache, while it runs.
    """

    def __init__(self, tokens: Sequence[int], reader: Reader[T], pace: Pace) -> None:
        """Prepare a pass that has not been given any cache yet.

        Args:
            tokens: the text, not empty.
            reader: gives the result.
            pace: how many fewer tokens a slice has deep in the text.
        """
        self.future: Future[T] = Future()
        self.reader = reader
        self.n_tokens = len(tokens)
        self.n_computed = 0
        self.blocks: list[int] = []
        self._tokens = np.asarray(tokens, np.int32)
        self._pace = pace

    @property
    def slice(self) -> NDArray[np.int32]:
        """The next tokens; where a text is cut does not depend on others."""
        n = self._pace.next(self.reader.slice_tokens, self.n_computed)
        return self._tokens[self.n_computed : self.n_computed + n]

    @property
    def slice_cost(self) -> float:
        """What they take, in first tokens of a text."""
        return self._pace.cost(len(self.slice), self.n_computed)

    def read(self, rows: NDArray[np.float32]) -> bool:
        """Take the numbers of the slice; whether it was the last one."""
        self.reader.read(rows)
        self.n_computed += len(rows)
        return self.n_computed == self.n_tokens

    def finish(self, error: Exception | None = None) -> None:
        """Give the result, or an error, to who still waits for it."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            if error is not None:
                raise error
            self.future.set_result(self.reader.result())
        except Exception as failure:  # the result itself may find no memory
            self.future.set_exception(failure)


class Passes:
    """Gives passes cache blocks, in the order of their arrival, and computes them. Not thread-safe."""

    def __init__(self, blocks: BlockManager) -> None:
        """Start empty.

        Args:
            blocks: the cache.
        """
        self._blocks = blocks
        self._waiting: deque[Pass[Any]] = deque()
        self._running: deque[Pass[Any]] = deque()

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def add(self, each: Pass[Any]) -> None:
        """Queue a pass whose text fits the cache."""
        self._waiting.append(each)

    def step(self, runner: _native.Runner) -> None:
        """Compute a slice of the pass whose turn it is, if there is any, and of others that fit beside it."""
        self._forget_cancelled()
        self._admit()
        if not self._running:
            return
        together = self._together()
        failure = None
        parts: Sequence[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(together)
        try:
            compute = runner.logits if together[0].reader.reads_logits else runner.hidden
            rows = compute(*_pack(together))
            parts = np.split(rows, np.cumsum([len(each.slice) for each in together])[:-1])
        except Exception as error:  # only these are lost
            failure = error
        for each, part in zip(together, parts, strict=True):
            self._take(each, part, failure)

    def _together(self) -> list[Pass[Any]]:
        """The first pass, and as many behind it that read the same numbers as fit the time of a slice."""
        first, *others = self._running
        found, room = [first], first.reader.slice_tokens - first.slice_cost
        for each in others:
            room -= each.slice_cost
            if each.reader.reads_logits != first.reader.reads_logits or room < 0:
                break
            found.append(each)
        return found

    def _take(self, each: Pass[Any], rows: NDArray[np.float32], failure: Exception | None) -> None:
        """Give a pass its numbers, or a failure; it goes to the end of the line, or is over."""
        try:
            is_over = failure is not None or each.read(rows)
        except Exception as error:
            is_over, failure = True, error
        if is_over:
            self._blocks.release(each.blocks)
            self._running.remove(each)
            each.finish(failure)
        else:
            self._running.remove(each)
            self._running.append(each)

    def fail(self, error: Exception) -> None:
        """End all of them."""
        ended = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        for each in ended:  # all are told before the account of blocks is touched, which may be wrong
            each.finish(error)
        for each in ended:
            self._blocks.release(each.blocks)

    def _forget_cancelled(self) -> None:
        for queue in (self._running, self._waiting):
            for each in [each for each in queue if each.future.cancelled()]:
                queue.remove(each)
                self._blocks.release(each.blocks)

    def _admit(self) -> None:
        while self._waiting:
            blocks = self._blocks.acquire([], self._blocks.blocks_for(self._waiting[0].n_tokens))
            if blocks is None:
                return
            self._waiting[0].blocks = blocks
            self._running.append(self._waiting.popleft())


def _pack(passes: Sequence[Pass[Any]]) -> _Batch:
    """The next slices of all, one behind the other."""
    tokens = np.concatenate([each.slice for each in passes])
    slices = np.array([(len(each.slice), each.n_computed) for each in passes], np.int64)
    tables = np.zeros((len(passes), max(len(each.blocks) for each in passes)), np.int32)
    for row, each in zip(tables, passes, strict=True):
        row[: len(each.blocks)] = each.blocks
    return tokens, slices, tables, np.arange(len(tokens), dtype=np.int64)


def _scored(logits: NDArray[np.float32], token: int, n_top: int) -> TokenLogprob:
    row = logits.astype(np.float64)
    most = row.max()
    row -= most + np.log(np.exp(row - most).sum())
    row = row.astype(np.float32)
    top = tuple((int(each), float(row[each])) for each in _likeliest(logits, n_top))
    return TokenLogprob(token, float(row[token]), top)


def _likeliest(logits: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """The n tokens with the largest logits, the lower id first among equals."""
    if n == 0:
        return np.empty(0, np.int64)
    least = np.partition(logits, -n)[-n]
    found = np.flatnonzero(logits >= least)
    return found[np.argsort(-logits[found], kind="stable")][:n]
