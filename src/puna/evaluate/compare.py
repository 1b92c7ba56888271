"""How far one model is from another on a text: perplexity, divergence and agreement, token by token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.engine.native import NativeEngine
from puna.errors import ConfigError
from puna.evaluate.chart import Bar, Panel, svg
from puna.evaluate.speed import SpeedReport, SpeedSettings, Spread, measure_apart
from puna.llama import Llama, load
from puna.prompt.records import read_utf8

__all__ = [
    "Agreement",
    "Comparison",
    "agreement_of",
    "chart_of",
    "compare",
    "compare_loaded",
    "compare_on",
    "log_probabilities",
]

_ROWS = 64  # of logits, in double at a time
_Piece = tuple[NDArray[np.float32], NDArray[np.float32], Sequence[int]]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two models, their predictions and their costs.

    Attributes:
        agreement: how near their predictions are.
        reference: speed, size and memory of the reference.
        other: the same of the other model.
    """

    agreement: Agreement
    reference: SpeedReport
    other: SpeedReport


def compare(
    reference: str,
    other: str,
    text: Path,
    *,
    formats: tuple[str, str] = ("auto", "auto"),
    max_tokens: int = 8192,
    window: int = 512,
    threads: int | None = None,
) -> Comparison:
    """Compare two models on a text, and measure the speed and memory of each in a process of its own.

    Args:
        reference: name or path of what the other is measured against.
        other: name or path of the model in question.
        text: a file in UTF-8.
        formats: how the weights of each are held, see `puna.load`.
        max_tokens: at most so many tokens of the text, from its beginning.
        window: see `compare_on`.
        threads: see `puna.load`.

    Raises:
        PunaError: whatever loading a model raises.
        ConfigError: the text cannot be read or is too short, or the vocabularies differ.
    """
    words = read_utf8(text)
    with (
        load(reference, format=formats[0], threads=threads, context=window) as a,
        load(other, format=formats[1], threads=threads, context=window) as b,
    ):
        agreement = compare_loaded(a, b, words, max_tokens=max_tokens, window=window)
    speeds = [
        measure_apart(SpeedSettings(model=name, format=format, threads=threads, new_tokens=32, repeats=3))
        for name, format in zip((reference, other), formats, strict=True)
    ]
    return Comparison(agreement=agreement, reference=speeds[0], other=speeds[1])


def compare_loaded(reference: Llama, other: Llama, text: str, *, max_tokens: int, window: int) -> Agreement:
    """Compare the predictions of two loaded models on a text.

    Args:
        reference: what the other is measured against.
        other: the model in question; may be the same.
        text: any text.
        max_tokens: at most so many tokens of it, from its beginning; at least 2.
        window: see `compare_on`.

    Raises:
        ConfigError: the text is too short, or `max_tokens` too small, or the vocabularies differ.
        CapacityError: the window is longer than a model's context.
    """
    if max_tokens < 2:
        raise ConfigError(f"`max_tokens` must be at least 2, got {max_tokens}")
    tokens = reference.tokenizer.encode(text)[:max_tokens]
    if other.tokenizer.encode(text)[:max_tokens] != tokens:
        names = f"{reference.info.name} and {other.info.name}"
        raise ConfigError(f"{names} must have one vocabulary, they read the text differently")
    assert isinstance(reference.engine, NativeEngine)
    assert isinstance(other.engine, NativeEngine)
    return compare_on(reference.engine, other.engine, tokens, window=window)


def chart_of(comparison: Comparison) -> str:
    """Draw both models' perplexity, size, memory and speed as an SVG file's text."""
    a, b, found = comparison.reference, comparison.other, comparison.agreement
    names = (a.model, b.model) if a.model != b.model else (f"{a.model} (A)", f"{b.model} (B)")
    rows = [
        (
            f"perplexity over {found.tokens} tokens (less is better)",
            (Spread.of([found.reference_perplexity]), Spread.of([found.perplexity])),
        ),
        ("file size, MB (less is better)", [Spread.of([r.file_bytes / 1e6]) for r in (a, b)]),
        ("peak memory, MB (less is better)", [Spread.of([r.peak_rss_bytes / 1e6]) for r in (a, b)]),
        ("decode, tokens a second (more is better)", [r.speed.decode_tokens_per_s for r in (a, b)]),
        ("prefill, tokens a second (more is better)", [r.speed.prefill_tokens_per_s for r in (a, b)]),
    ]
    panels = [
        Panel(title, [Bar(names[0], first, False), Bar(names[1], second, True)])
        for title, (first, second) in rows
    ]
    return svg(f"{names[1]} against {names[0]}, {a.machine.cpu}, {a.threads} threads ({a.isa})", panels)


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
    return agreement_of(
        (reference.logits(piece)[:-1], other.logits(piece)[:-1], piece[1:])
        for piece in _windows(tokens, window)
    )


def agreement_of(pieces: Iterable[_Piece]) -> Agreement:
    """Compare two models' logits, whatever computed them.

    Args:
        pieces: at least one of: the reference's logits ``[tokens, vocabulary]``, the other model's, and the
            tokens that came.

    Raises:
        ConfigError: the vocabularies differ in size.
    """
    losses, divergences, same = [], [], []
    for reference, other, tokens in _few_rows(pieces):
        a, b = log_probabilities(reference), log_probabilities(other)
        if a.shape != b.shape:
            raise ConfigError(
                f"the models must have one vocabulary, got {a.shape[1]} and {b.shape[1]} tokens in theirs"
            )
        at = (np.arange(len(tokens)), np.asarray(tokens))
        losses.append(np.stack([a[at], b[at]]))
        divergences.append((np.exp(a) * (a - b)).sum(1))
        same.append(a.argmax(1) == b.argmax(1))
    loss, divergence = -np.concatenate(losses, 1).mean(1), np.concatenate(divergences)
    with np.errstate(over="ignore"):  # a broken model's is infinite
        perplexity = np.exp(loss)
    return Agreement(
        tokens=len(divergence),
        reference_perplexity=float(perplexity[0]),
        perplexity=float(perplexity[1]),
        mean_kl=float(divergence.mean()),
        kl_error=float(divergence.std() / np.sqrt(len(divergence))),
        top1_agreement=float(np.concatenate(same).mean()),
    )


def _few_rows(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """The same, cut so that doubles of some rows are in memory, and not of all."""
    for reference, other, tokens in pieces:
        for start in range(0, len(tokens), _ROWS):
            end = start + _ROWS
            yield reference[start:end], other[start:end], tokens[start:end]


def _windows(tokens: Sequence[int], window: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(tokens) - 1, window):
        piece = tokens[start : start + window]
        if len(piece) > 1:
            yield piece


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits to the logarithms of probabilities, in double: ``[tokens, vocabulary]``."""
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(1, keepdims=True)))
