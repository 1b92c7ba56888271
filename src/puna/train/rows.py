"""Rows of token ids that a model learns from: texts cut into rows, conversations packed into them.

Shapes: B rows of T tokens; N rows in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import torch
from torch import Tensor

from puna.errors import ConfigError
from puna.train.encode import Example

__all__ = ["NOT_COUNTED", "Batch", "Rows", "cut_into_rows", "pack_into_rows"]

NOT_COUNTED = -100
"""A target that no loss counts, as in torch's cross-entropy."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens.

    Attributes:
        tokens: what the model reads, ``[B, T]`` int64.
        targets: what it should say next at every place, or `NOT_COUNTED`, ``[B, T]`` int64.
        segments: which text of its row each token belongs to, ``[B, T]`` int64; None: one text a row.
    """

    tokens: Tensor
    targets: Tensor
    segments: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        segments = None if self.segments is None else self.segments.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), segments)


class Rows:
    """Rows in memory; implements `puna.train.loop.Data`."""

    def __init__(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> None:
        """Keep rows.

        Args:
            tokens: ``[N, T]``, any integer type.
            targets: the same shape, see `Batch`.
            segments: the same shape; None: one text a row.
        """
        self.tokens, self.targets = tokens, targets
        self.segments = torch.zeros_like(tokens) if segments is None else segments

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.tokens)

    def batch(self, rows: list[int]) -> Batch:
        """The named rows together."""
        tokens, targets, segments = (x[rows].long() for x in (self.tokens, self.targets, self.segments))
        return Batch(tokens, targets, segments if segments.any() else None)

    def split(self, n_held_out: int) -> tuple[Rows, Rows]:
        """Two parts: all but so many rows, and those, spread evenly over all.

        Raises:
            ConfigError: nothing would be left to learn from.
        """
        if n_held_out >= len(self):
            raise ConfigError(
                f"{n_held_out} rows are to be held out, and there are {len(self)}; give more data"
            )
        held_out = [(2 * i + 1) * len(self) // (2 * n_held_out) for i in range(n_held_out)]
        kept = sorted(set(range(len(self))) - set(held_out))
        first, second = (Rows(self.tokens[r], self.targets[r], self.segments[r]) for r in (kept, held_out))
        return first, second

    def __add__(self, other: Rows) -> Rows:
        """These rows and then those."""
        pairs = ((self.tokens, other.tokens), (self.targets, other.targets), (self.segments, other.segments))
        return Rows(*(torch.cat(pair) for pair in pairs))


def cut_into_rows(ids: Sequence[int], length: int) -> Rows:
    """Cut a long text into rows that follow one another; what is left at the end is dropped.

    Args:
        ids: texts with whatever stands between them.
        length: tokens of a row.

    Raises:
        ConfigError: the text is too short for one row.
    """
    n = (len(ids) - 1) // length
    if n < 1:
        raise ConfigError(
            f"the text has {len(ids)} tokens, a row of {length} needs {length + 1}; give more "
            "text, or shorter rows"
        )
    flat = torch.tensor(ids[: n * length + 1], dtype=torch.int32)
    return Rows(flat[:-1].reshape(n, length), flat[1:].clone().reshape(n, length))


def pack_into_rows(examples: Sequence[Example], length: int) -> Rows:
    """Put texts into rows, as many as fit into each; none is cut, and none sees another of its row.

    The longest are placed first, each into the first row that has room: few places stay empty.

    Args:
        examples: each of at most ``length + 1`` tokens; the last of them is only a target.
        length: tokens of a row.

    Raises:
        ConfigError: an example is longer.
    """
    rows: list[list[Example]] = []
    # The rows that have so much room, as a heap, and the first of them.
    with_room: list[list[int]] = [[] for _ in range(length + 1)]
    first = np.full(length + 1, len(examples))
    for example in sorted(examples, key=lambda e: -len(e.ids)):
        needs = len(example.ids) - 1
        if needs > length:
            raise ConfigError(f"an example has {needs + 1} tokens, a row of {length} takes {length + 1}")
        room = needs + int(first[needs:].argmin())
        place = int(first[room])
        if place == len(examples):
            room, place = length, len(rows)
            rows.append([])
        else:
            heappop(with_room[room])
            first[room] = with_room[room][0] if with_room[room] else len(examples)
        rows[place].append(example)
        heappush(with_room[room - needs], place)
        first[room - needs] = with_room[room - needs][0]
    tokens = torch.zeros((len(rows), length), dtype=torch.int32)
    targets = torch.full((len(rows), length), NOT_COUNTED, dtype=torch.int32)
    segments = torch.zeros((len(rows), length), dtype=torch.int32)
    for row, packed in enumerate(rows):
        at = 0
        for number, example in enumerate(packed):
            end = at + len(example.ids) - 1
            ids = torch.tensor(example.ids, dtype=torch.int32)
            said = torch.tensor(example.said[1:], dtype=torch.bool)
            tokens[row, at:end] = ids[:-1]
            targets[row, at:end] = torch.where(said, ids[1:], NOT_COUNTED)
            segments[row, at:end] = number
            at = end
        segments[row, at:] = len(packed)
    return Rows(tokens, targets, segments)
