"""The two tables of quantized models in the Llama 3.2 model card, for any models: `make_card`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from puna.errors import ConfigError
from puna.evaluate.compare import Agreement, compare_loaded
from puna.evaluate.machine import Machine
from puna.evaluate.questions import Question, accuracy, read_questions
from puna.evaluate.speed import SpeedReport, SpeedSettings, Spread, measure_apart
from puna.llama import load
from puna.models.local import known_row
from puna.prompt.records import read_utf8

__all__ = ["Card", "CardRow", "CardSettings", "Inference", "Published", "Quality", "make_card", "published"]

PROMPT_TOKENS = 64
"""Length of the prompts, as in the model card."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardSettings:
    """What to measure, and on what.

    Attributes:
        models: names or paths; the first is what the others are compared with.
        text: a text for perplexity and divergence; None leaves them out.
        questions: files for `puna.evaluate.questions`, each a benchmark that is called as the file is.
        max_tokens: at most so many tokens of the text.
        window: tokens of it that are seen at once.
        new_tokens: length of the answers that are timed.
        rounds: how often each model is measured; a round goes through all models, beginning with another one.
        threads: see `puna.load`.
    """

    models: tuple[str, ...]
    text: Path | None = None
    questions: tuple[Path, ...] = ()
    max_tokens: int = 4096
    window: int = 512
    new_tokens: int = 128
    rounds: int = 3
    threads: int | None = None

    def __post_init__(self) -> None:
        """Validate; ConfigError names what is wrong."""
        if not self.models:
            raise ConfigError("a card needs at least one model, got none")
        if self.rounds < 1:
            raise ConfigError(f"`rounds` must be at least 1, got {self.rounds}")
        if len({path.stem for path in self.questions}) < len(self.questions):
            raise ConfigError("files of questions need different names, which are those of the benchmarks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """The columns of the card's first table; each the median of the rounds, the lowest and the highest."""

    decode_tokens_per_s: Spread
    time_to_first_token_s: Spread
    prefill_tokens_per_s: Spread
    file_bytes: int
    peak_rss_bytes: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """The columns of the second table.

    Attributes:
        perplexity: on the text; None without one.
        agreement: with the first model, on the text, also of that model with itself; None without a text.
        benchmarks: share of right answers, by name.
    """

    perplexity: float | None
    agreement: Agreement | None
    benchmarks: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What the model card says of a model.

    Attributes:
        decode_tokens_per_s: tokens a second after the first.
        time_to_first_token_s: of a prompt of 64 tokens.
        prefill_tokens_per_s: prompt tokens over that time.
        file_mb: size of the file, in units of 2^20 bytes, which the card calls MB.
        rss_mb: peak memory, in what the card calls MB.
        benchmarks: scores, in percent.
    """

    decode_tokens_per_s: float
    time_to_first_token_s: float
    prefill_tokens_per_s: float
    file_mb: float
    rss_mb: float
    benchmarks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CardRow:
    """One model.

    Attributes:
        model: its name.
        formats: how many matrices are in each packed format.
        inference: the first table's row.
        quality: the second table's.
        published: what the model card says of it; None where it is no model of the card.
    """

    model: str
    formats: dict[str, int]
    inference: Inference
    quality: Quality
    published: Published | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Both tables.

    Attributes:
        rows: the models, in the order asked for.
        tokens: how many were predicted for the perplexities, 0 without a text.
        machine: where it was measured.
        isa: the kernels' instruction set.
        threads: threads that computed.
        published_source: where the published figures stand.
        published_device: what those were measured on.
    """

    rows: tuple[CardRow, ...]
    tokens: int
    machine: Machine
    isa: str
    threads: int
    published_source: str
    published_device: str


def make_card(settings: CardSettings, progress: Callable[[str], None] = lambda text: None) -> Card:
    """Measure models for both tables.

    Args:
        settings: what to measure.
        progress: told what is done next, in words.

    Raises:
        PunaError: whatever loading a model raises.
        ConfigError: a file cannot be read, or the vocabularies differ.
    """
    questions = {path.stem: read_questions(path) for path in settings.questions}
    text = None if settings.text is None else read_utf8(settings.text)
    qualities = [_quality(settings, name, text, questions, progress) for name in settings.models]
    reports = _rounds(settings, progress)
    rows = tuple(
        CardRow(
            model=found[0].model,
            formats=found[0].formats,
            inference=_inference(found),
            quality=quality,
            published=published(name),
        )
        for name, quality, found in zip(settings.models, qualities, reports, strict=True)
    )
    last, figures = reports[0][0], _figures()
    agreements = [row.quality.agreement for row in rows if row.quality.agreement is not None]
    return Card(
        rows=rows,
        tokens=agreements[0].tokens if agreements else 0,
        machine=last.machine,
        isa=last.isa,
        threads=last.threads,
        published_source=figures["source"],
        published_device=figures["device"],
    )


def published(model: str) -> Published | None:
    """What the model card says of a model, by any of its names or the path of its folder; None for others."""
    row = known_row(model) or known_row(Path(model).name)
    raw = None if row is None else _figures()["models"].get(row.name)
    return None if raw is None else Published(**raw)


@cache
def _figures() -> dict[str, Any]:
    text = files("puna.evaluate").joinpath("model_card.json").read_text(encoding="utf-8")
    figures: dict[str, Any] = json.loads(text)
    return figures


def _rounds(settings: CardSettings, progress: Callable[[str], None]) -> list[list[SpeedReport]]:
    """Reports of each model, one a round, every one from a process of its own."""
    reports: list[list[SpeedReport]] = [[] for _ in settings.models]
    for turn in range(settings.rounds):
        for place in range(len(settings.models)):
            i = (place + turn) % len(settings.models)
            progress(f"round {turn + 1} of {settings.rounds}: speed and memory of {settings.models[i]}")
            reports[i].append(
                measure_apart(
                    SpeedSettings(
                        model=settings.models[i],
                        threads=settings.threads,
                        prompt_tokens=PROMPT_TOKENS,
                        new_tokens=settings.new_tokens,
                        repeats=3,
                    )
                )
            )
    return reports


def _inference(reports: Sequence[SpeedReport]) -> Inference:
    speeds = [report.speed for report in reports]
    return Inference(
        decode_tokens_per_s=Spread.of([speed.decode_tokens_per_s.median for speed in speeds]),
        time_to_first_token_s=Spread.of([speed.time_to_first_token_s.median for speed in speeds]),
        prefill_tokens_per_s=Spread.of([speed.prefill_tokens_per_s.median for speed in speeds]),
        file_bytes=reports[0].file_bytes,
        peak_rss_bytes=Spread.of([report.peak_rss_bytes for report in reports]),
    )


def _quality(
    settings: CardSettings,
    name: str,
    text: str | None,
    questions: dict[str, list[Question]],
    progress: Callable[[str], None],
) -> Quality:
    found = None
    with load(name, threads=settings.threads) as llama:
        scores = {}
        for benchmark, asked in questions.items():
            progress(f"{benchmark}: {len(asked)} questions to {name}")
            scores[benchmark] = accuracy(llama, asked)
        if text is not None:
            progress(f"predictions of {name}")
            with load(settings.models[0], threads=settings.threads) as reference:
                found = compare_loaded(
                    reference, llama, text, max_tokens=settings.max_tokens, window=settings.window
                )
    return Quality(perplexity=None if found is None else found.perplexity, agreement=found, benchmarks=scores)
