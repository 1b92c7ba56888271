"""What is to become small: `cross_entropy`, `distillation` and `preference_loss`.

Each gives a sum over what counts in a batch, and the number of what counts.
Shapes: B rows of T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from puna.nn.model import Transformer
from puna.train.rows import NOT_COUNTED, Batch

__all__ = ["answer_log_probabilities", "cross_entropy", "distillation", "preference_loss"]


def cross_entropy(model: Transformer, batch: Batch) -> tuple[Tensor, int]:
    """How surprised a model is at the targets, summed over those that count.

    Args:
        model: what learns.
        batch: rows of texts.

    Returns:
        The sum in nats, and how many targets count.
    """
    logits, targets = _counted(model, batch)
    return functional.cross_entropy(logits, targets, reduction="sum"), len(targets)


def distillation(model: Transformer, teacher: Transformer, batch: Batch) -> tuple[Tensor, int]:
    """How far a model's predictions are from another's: KL(teacher, model) where targets count.

    The targets say where, not what: the teacher's whole distribution is the aim. There is more in it than
    in one word a place, so few texts go a long way; and a model that has learned from better data than is
    at hand loses nothing of it.

    Args:
        model: what learns.
        teacher: the aim, which does not change; with the same vocabulary.
        batch: rows of texts.

    Returns:
        The sum in nats, and how many places count.
    """
    with torch.no_grad():
        aim, targets = _counted(teacher, batch)
        aim = functional.log_softmax(aim, -1)
    logits, _ = _counted(model, batch)
    loss = functional.kl_div(functional.log_softmax(logits, -1), aim, reduction="sum", log_target=True)
    return loss, len(targets)


def answer_log_probabilities(model: Transformer, batch: Batch) -> Tensor:
    """Log-probability of all counted targets of each row together: float32 ``[B]``."""
    logits = model(batch.tokens, segments=batch.segments).float()
    counts = batch.targets != NOT_COUNTED
    losses = functional.cross_entropy(
        logits.transpose(1, 2), batch.targets, ignore_index=NOT_COUNTED, reduction="none"
    )
    return -(losses * counts).sum(1)


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Direct preference optimization: the better answer is to gain more than the other.

    ``-log sigmoid(beta * (chosen - rejected))``, where both are the log-probability of an answer less that
    which the model gave it before training.

    Args:
        chosen: gains of the better answers, ``[pairs]``.
        rejected: gains of the others.
        beta: how soon a pair counts as learned; over 0.

    Returns:
        The sum over the pairs.

    Source: Rafailov et al., Direct Preference Optimization (2023), equation 7.
    """
    return -functional.logsigmoid(beta * (chosen - rejected)).sum()


def _counted(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits ``[n, V]``, float32 at least, and targets ``[n]`` of the places that count."""
    # The head is most of the work of a small model: places that do not count never reach it.
    where = batch.targets != NOT_COUNTED
    hidden = model.model(batch.tokens, segments=batch.segments)[where]
    logits = model.lm_head(hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), batch.targets[where]
