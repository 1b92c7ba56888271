"""How far one model is from another on a text: perplexity, divergence and agreement, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from puna.errors import ConfigError

if TYPE_CHECKING:
    from puna.engine.native import NativeEngine

__all__ = ["Agreement", "compare_on"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Two models on the same tokens.

    Attributes:
        tokens: how many were predicted.
        reference_perplexity: exp of the mean loss of the reference; lower is better.
        perplexity: the same of the other model.
        mean_kl: mean over the tokens of KL(reference, other), in nats.
        kl_error: standard error of that mean, neighbours taken as independent.
        top1_agreement: share of tokens for which both have the same likeliest next token.
    """

    tokens: int
    reference_perplexity: float
    perplexity: float
    mean_kl: float
    kl_error: float
    top1_agreement: float


def compare_on(
    reference: NativeEngine, other: NativeEngine, tokens: Sequence[int], *, window: int = 512
) -> Agreement:
    """Compare the predictions of two models with the same vocabulary.

    The text is cut into windows that do not overlap; the first token of each is not predicted.

    Args:
        reference: what the other is measured against.
        other: the model in question.
        tokens: ids of the text, at least 2.
        window: tokens seen at once, at least 2.

    Raises:
        ConfigError: the text or the window is too short, or the vocabularies differ in size.
        CapacityError: the window is longer than a model's context.
    """
    if window < 2 or len(tokens) < 2:
        raise ConfigError(f"need a window and a text of at least 2 tokens, got {window} and {len(tokens)}")
    losses, divergences, same = [], [], []
    for piece in _windows(tokens, window):
        a, b = (_log_probabilities(engine.logits(piece)[:-1]) for engine in (reference, other))
        if a.shape != b.shape:
            raise ConfigError(
                f"the models must have one vocabulary, got {a.shape[1]} and {b.shape[1]} tokens in theirs"
            )
        at = (np.arange(len(piece) - 1), np.asarray(piece[1:]))
        losses.append(np.stack([a[at], b[at]]))
        divergences.append((np.exp(a) * (a - b)).sum(1))
        same.append(a.argmax(1) == b.argmax(1))
    loss, divergence = -np.concatenate(losses, 1).mean(1), np.concatenate(divergences)
    return Agreement(
        tokens=len(divergence),
        reference_perplexity=float(np.exp(loss[0])),
        perplexity=float(np.exp(loss[1])),
        mean_kl=float(divergence.mean()),
        kl_error=float(divergence.std() / np.sqrt(len(divergence))),
        top1_agreement=float(np.concatenate(same).mean()),
    )


def _windows(tokens: Sequence[int], window: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(tokens) - 1, window):
        piece = tokens[start : start + window]
        if len(piece) > 1:
            yield piece


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(1, keepdims=True)))
