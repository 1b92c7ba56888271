"""``puna card``: the model card's tables for any models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import options
from puna.cli.output import print_json, print_table, say, size_text

if TYPE_CHECKING:
    from puna.evaluate.card import Card, CardRow
    from puna.evaluate.speed import Spread

__all__ = ["card"]


def card(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Names or paths; the first is the reference.")
    ],
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", metavar="FILE", help="A text, for perplexity and divergence.", show_default=False
        ),
    ] = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option("--questions", metavar="FILE", help="Multiple-choice questions; may be given again."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", help="At most N tokens of the text.")
    ] = 4096,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", metavar="N", help="Length of the answers that are timed.")
    ] = 128,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="How often each is measured.")] = 3,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Print the Llama 3.2 model card's two tables of quantized models for the given ones.

    Speed, size and memory, each model in a process of its own and in turn; perplexity, divergence and what
    else there are files for. Models of the card have its own figures beside them.
    """
    from puna.evaluate.card import CardSettings, make_card

    settings = CardSettings(
        models=tuple(models),
        text=text,
        questions=tuple(questions or ()),
        max_tokens=max_tokens,
        new_tokens=new_tokens,
        rounds=rounds,
        threads=threads,
    )
    made = make_card(settings, say)
    if as_json:
        print_json(asdict(made))
    else:
        _print(made)


def _print(made: Card) -> None:
    machine = made.machine
    typer.echo(
        f"{machine.cpu}, {made.threads} threads, {made.isa}; medians, in brackets over the first model"
    )
    typer.echo("")
    first = made.rows[0]
    inference = [line for row in made.rows for line in _inference(row, first)]
    print_table(["", "decode tok/s", "first token s", "prefill tok/s", "file", "peak memory"], inference)
    if any(row.quality.perplexity is not None or row.quality.benchmarks for row in made.rows):
        typer.echo("")
        names = list(first.quality.benchmarks)
        quality = [line for row in made.rows for line in _quality(row, first, names)]
        print_table(["", f"perplexity ({made.tokens} tokens)", "mean KL", "same token", *names], quality)
    told = [row for row in made.rows if row.published is not None]
    if told:
        typer.echo("")
        print_table(["published, percent", *(row.model for row in told)], _published_scores(told))
        typer.echo("")
        typer.echo(f"published: {made.published_source}; {made.published_device}")


def _inference(row: CardRow, first: CardRow) -> list[list[str]]:
    got, base = row.inference, first.inference

    def cell(value: Spread, reference: Spread, digits: int) -> str:
        return f"{value.median:.{digits}f}{_ratio(value.median, reference.median, row is first)}"

    lines = [
        [
            row.model,
            cell(got.decode_tokens_per_s, base.decode_tokens_per_s, 1),
            cell(got.time_to_first_token_s, base.time_to_first_token_s, 3),
            cell(got.prefill_tokens_per_s, base.prefill_tokens_per_s, 1),
            size_text(got.file_bytes) + _ratio(got.file_bytes, base.file_bytes, row is first),
            size_text(int(got.peak_rss_bytes.median))
            + _ratio(got.peak_rss_bytes.median, base.peak_rss_bytes.median, row is first),
        ]
    ]
    told = row.published
    if told is not None:
        speeds = told.decode_tokens_per_s, told.time_to_first_token_s, told.prefill_tokens_per_s
        # Of files the card's MB are 2^20 bytes, as its bfloat16 rows show: 2,358 for 2,472 million bytes.
        sizes = f"{told.file_mb:,.0f} MiB", f"{told.rss_mb:,.0f} MB"
        lines.append(["  published", *(f"{value:g}" for value in speeds), *sizes])
    return lines


def _ratio(value: float, reference: float, is_first: bool) -> str:
    return "" if is_first else f" ({value / reference:.2f}x)"


def _quality(row: CardRow, first: CardRow, names: list[str]) -> list[list[str]]:
    got = row.quality
    agreement = None if row is first else got.agreement
    lines = [
        [
            row.model,
            "" if got.perplexity is None else f"{got.perplexity:.4f}",
            "" if agreement is None else f"{agreement.mean_kl:.5f} ± {agreement.kl_error:.5f}",
            "" if agreement is None else f"{100 * agreement.top1_agreement:.2f} %",
            *(f"{100 * got.benchmarks[name]:.1f}" for name in names),
        ]
    ]
    if row.published is not None and any(name in row.published.benchmarks for name in names):
        scores = (row.published.benchmarks.get(name) for name in names)
        lines.append(
            ["  published", "", "", "", *("" if score is None else f"{score:g}" for score in scores)]
        )
    return lines


def _published_scores(rows: list[CardRow]) -> list[list[str]]:
    """A benchmark a line, as there are too many for columns."""
    scores = [row.published.benchmarks for row in rows if row.published is not None]
    names = dict.fromkeys(name for found in scores for name in found)
    return [[name, *(f"{found[name]:g}" if name in found else "" for found in scores)] for name in names]
