"""``puna compare``: what a quantized model lost, and what it gained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import options
from puna.cli.output import print_json, print_table, size_text, write_text

if TYPE_CHECKING:
    from puna.evaluate.compare import Comparison
    from puna.evaluate.speed import SpeedReport

__all__ = ["compare"]


def compare(
    reference: Annotated[str, typer.Argument(metavar="A", help="The reference: name or path of a model.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The model that is measured against it.")],
    text: Annotated[Path, typer.Option("--text", metavar="FILE", help="A text that neither was made with.")],
    reference_format: Annotated[
        str, typer.Option("--reference-format", metavar="NAME", help="How A's weights are held, as --format.")
    ] = "auto",
    format: options.Format = "auto",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", help="At most N tokens of the text.")
    ] = 8192,
    window: Annotated[int, typer.Option("--window", metavar="N", help="Tokens seen at once.")] = 512,
    threads: options.Threads = None,
    chart: options.Chart = None,
    as_json: options.Json = False,
) -> None:
    """Compare two models of one vocabulary on a text.

    Perplexity, the mean divergence of B's predictions from A's and how often both find the same token
    likeliest; size, speed and memory, each model in a process of its own.
    """
    from puna.evaluate.compare import chart_of
    from puna.evaluate.compare import compare as run

    comparison = run(
        reference,
        other,
        text,
        formats=(reference_format, format),
        max_tokens=max_tokens,
        window=window,
        threads=threads,
    )
    if as_json:
        print_json(asdict(comparison))
    else:
        _print(comparison)
    # Last: where it cannot be written, what took minutes to measure is told all the same.
    if chart is not None:
        write_text(chart, chart_of(comparison))


def _print(comparison: Comparison) -> None:
    found, a, b = comparison.agreement, comparison.reference, comparison.other
    perplexities = f"{found.reference_perplexity:.4f}", f"{found.perplexity:.4f}"
    print_table(
        ["", a.model, b.model],
        [
            [f"perplexity over {found.tokens} tokens", *perplexities],
            ["mean KL a token, nats", "", f"{found.mean_kl:.5f} ± {found.kl_error:.5f}"],
            ["same likeliest token", "", f"{100 * found.top1_agreement:.2f} %"],
            *([label, _of(label, a), _of(label, b)] for label in _COSTS),
        ],
    )


_COSTS = ("file size", "peak memory", "decode", "time to first token", "prefill")


def _of(label: str, report: SpeedReport) -> str:
    speed = report.speed
    return {
        "file size": size_text(report.file_bytes),
        "peak memory": size_text(report.peak_rss_bytes),
        "decode": f"{speed.decode_tokens_per_s.median:.1f} tok/s",
        "time to first token": f"{speed.time_to_first_token_s.median:.3f} s",
        "prefill": f"{speed.prefill_tokens_per_s.median:.1f} tok/s",
    }[label]
