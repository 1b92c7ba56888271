"""Passes over a text that draw no tokens: embeddings, scores and logits.

A step of the engine computes a slice of one of them, each in its turn, so that answers go on meanwhile.
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
from puna.engine.request import TokenLogprob

__all__ = ["Logits", "MeanHidden", "Pass", "Passes", "Reader", "Scores"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Tokens, slices, block tables and output rows, as in `puna.engine.scheduler.Step`: of one text, all rows.
_Slice = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]


class Reader(Protocol[T_co]):
    """What a pass makes of the model's numbers.

    Attributes:
        slice_tokens: tokens that it wants at a time.
    """

    slice_tokens: int

    def read(self, runner: _native.Runner, piece: _Slice) -> None:
        """Compute the next slice and take from it what is wanted."""
        ...

    def result(self) -> T_co:
        """What was wanted, after the last slice."""
        ...


class MeanHidden:
    """The mean of the final hidden states, float32 ``[dim]``."""

    slice_tokens = 256  # as many as a step has of prompts

    def __init__(self, dim: int) -> None:
        """Start with nothing.

        Args:
            dim: size of a hidden state.
        """
        self._total = np.zeros(dim, np.float64)
        self._n_tokens = 0

    def read(self, runner: _native.Runner, piece: _Slice) -> None:
        """Add a slice."""
        self._total += np.asarray(runner.hidden(*piece), np.float64).sum(axis=0)
        self._n_tokens += len(piece[0])

    def result(self) -> NDArray[np.float32]:
        """The mean."""
        return (self._total / self._n_tokens).astype(np.float32)


class Scores:
    """How likely the model finds every token after the first."""

    slice_tokens = 64  # logits are the largest numbers of a model: 32 MiB, with 128,256 words

    def __init__(self, tokens: Sequence[int], n_top: int) -> None:
        """Start with nothing.

        Args:
            tokens: the text.
            n_top: of how many of the likeliest tokens to tell at each place.
        """
        self._tokens = tokens
        self._n_top = n_top
        self._found: list[TokenLogprob] = []

    def read(self, runner: _native.Runner, piece: _Slice) -> None:
        """Score what comes after each token of a slice; nothing comes after the text's last one."""
        first = len(self._found) + 1
        for row, token in zip(
            runner.logits(*piece), self._tokens[first : first + len(piece[0])], strict=False
        ):
            self._found.append(_scored(row, token, self._n_top))

    def result(self) -> list[TokenLogprob]:
        """One for every token after the first."""
        return self._found


class Logits:
    """Logits at every position, float32 ``[tokens, vocabulary]``."""

    slice_tokens = 256

    def __init__(self) -> None:
        """Start with nothing."""
        self._parts: list[NDArray[np.float32]] = []

    def read(self, runner: _native.Runner, piece: _Slice) -> None:
        """Keep those of a slice."""
        self._parts.append(runner.logits(*piece))

    def result(self) -> NDArray[np.float32]:
        """All of them."""
        return np.concatenate(self._parts)


class Pass(Generic[T]):
    """One pass over one text.

    Attributes:
        future: has the result in the end; once it is cancelled, nothing more is computed for it.
        n_tokens: length of the text.
        blocks: of the cache, while it runs.
    """

    def __init__(self, tokens: Sequence[int], reader: Reader[T]) -> None:
        """Prepare a pass that has not been given any cache yet.

        Args:
            tokens: the text, not empty.
            reader: gives the result.
        """
        self.future: Future[T] = Future()
        self.n_tokens = len(tokens)
        self.blocks: list[int] = []
        self._tokens = np.asarray(tokens, np.int32)
        self._reader = reader
        self._n_computed = 0

    def run_slice(self, runner: _native.Runner) -> bool:
        """Compute the next slice; whether it was the last."""
        start = self._n_computed
        tokens = self._tokens[start : start + self._reader.slice_tokens]
        slices = np.array([[len(tokens), start]], np.int64)
        table = np.asarray([self.blocks], np.int32)
        self._reader.read(runner, (tokens, slices, table, np.arange(len(tokens), dtype=np.int64)))
        self._n_computed += len(tokens)
        return self._n_computed == self.n_tokens

    def finish(self, error: Exception | None = None) -> None:
        """Give the result, or an error, to who still waits for it."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            if error is not None:
                raise error
            self.future.set_result(self._reader.result())
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
        """Compute a slice of the pass whose turn it is, if there is any."""
        self._forget_cancelled()
        self._admit()
        if not self._running:
            return
        each = self._running[0]
        failure = None
        try:
            is_over = each.run_slice(runner)
        except Exception as error:  # only this one is lost
            is_over, failure = True, error
        if is_over:
            self._blocks.release(each.blocks)
            self._running.popleft()
            each.finish(failure)
        else:
            self._running.rotate(-1)

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
