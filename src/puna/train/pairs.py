"""Pairs of answers for preference training: `Pairs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.nn.model import Transformer
from puna.train.data import Pair
from puna.train.losses import answer_log_probabilities, preference_loss
from puna.train.rows import NOT_COUNTED, Batch

__all__ = ["PairBatch", "Pairs", "dpo_loss"]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Some pairs.

    Attributes:
        answers: the chosen answers and then the rejected ones, ``[2 * pairs, T]``, shorter ones filled up
            behind their end, where nothing counts.
        reference: log-probability of each before training, ``[2 * pairs]``.
    """

    answers: Batch
    reference: Tensor


class Pairs:
    """Pairs with what the model made of them before training; implements `puna.train.loop.Data`."""

    def __init__(self, pairs: Sequence[Pair], model: Transformer, batch: int) -> None:
        """Keep pairs, and look once at each.

        Args:
            pairs: the answers.
            model: as it is before training; gains count from here.
            batch: how many pairs to look at together.
        """
        self._pairs, self._device = pairs, model.model.embed_tokens.weight.device
        self._reference = torch.zeros((len(pairs), 2))
        with torch.no_grad():
            for start in range(0, len(pairs), batch):
                rows = list(range(start, min(start + batch, len(pairs))))
                found = answer_log_probabilities(model, self._answers(rows))
                self._reference[rows] = found.reshape(2, -1).T.cpu()

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self._pairs)

    def batch(self, rows: list[int]) -> PairBatch:
        """The named pairs together."""
        return PairBatch(self._answers(rows), self._reference[rows].T.flatten().to(self._device))

    def _answers(self, rows: list[int]) -> Batch:
        examples = [self._pairs[row][side] for side in (0, 1) for row in rows]
        length = max(len(example.ids) for example in examples) - 1
        tokens = torch.zeros((len(examples), length), dtype=torch.int64)
        targets = torch.full_like(tokens, NOT_COUNTED)
        for place, example in enumerate(examples):
            n = len(example.ids) - 1
            ids, said = torch.tensor(example.ids), torch.tensor(example.said[1:])
            tokens[place, :n] = ids[:-1]
            targets[place, :n] = torch.where(said, ids[1:], NOT_COUNTED)
        return Batch(tokens, targets).to(self._device)


def dpo_loss(model: Transformer, batch: PairBatch, beta: float) -> tuple[Tensor, int]:
    """`preference_loss` of a batch, and the number of its pairs."""
    gains = answer_log_probabilities(model, batch.answers) - batch.reference
    chosen, rejected = gains.chunk(2)
    return preference_loss(chosen, rejected, beta), len(chosen)
