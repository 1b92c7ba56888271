"""``puna bench``: the speed of a model on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import options
from puna.cli.output import print_json, print_rows, say, size_text
from puna.cli.progress import FetchProgress, PackProgress

if TYPE_CHECKING:
    from puna.evaluate.roofline import Limit
    from puna.evaluate.speed import SpeedReport, Spread

__all__ = ["bench"]


def bench(
    model: options.Model = None,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", metavar="N", help="Length of the prompts.")
    ] = 64,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", metavar="N", help="Length of the answers.")
    ] = 128,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", help="Measured runs, after one to warm up.")
    ] = 5,
    format: options.Format = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    cache: options.Cache = "auto",
    speculation: options.Speculation = "off",
    draft: options.Draft = None,
    as_json: options.Json = False,
) -> None:
    """Measure speed, size and memory.

    The figures are those of the Llama 3.2 model card, the cold start, and what the machine allows at most.
    """
    from puna.evaluate.speed import SpeedSettings, measure_apart
    from puna.models.catalogue import DEFAULT_MODEL
    from puna.models.local import open_model

    settings = SpeedSettings(
        model=model or DEFAULT_MODEL,
        format=format,
        threads=threads,
        context=context,
        cache=cache,
        speculation=speculation if draft is None else "lookup",
        draft=draft,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=repeat,
    )
    with FetchProgress() as fetching, PackProgress("packing") as packing:
        open_model(settings.model, settings.format, fetching, packing)
        if draft is not None:
            open_model(draft, "auto", fetching, packing)
    say(f"measuring {settings.model} in a process of its own: 1 + {repeat} runs")
    report = measure_apart(settings)
    if as_json:
        print_json(asdict(report))
    else:
        _print(report)


def _print(report: SpeedReport) -> None:
    formats = ", ".join(f"{count} {name}" for name, count in report.formats.items())
    speed, machine = report.speed, report.machine
    print_rows(
        [
            ("model", f"{report.model} ({formats})"),
            ("machine", f"{machine.cpu}, {report.threads} threads, {report.isa}, {report.cache} cache"),
            ("decode", _spread(speed.decode_tokens_per_s, "tok/s", 1)),
            (
                "speculation",
                f"{report.settings.speculation}, {_spread(speed.tokens_per_step, 'tokens a step', 2)}",
            ),
            ("time to first token", _spread(speed.time_to_first_token_s, "s", 3)),
            ("prefill", _spread(speed.prefill_tokens_per_s, "tok/s", 1)),
            ("cold start", f"{report.cold_start_s:.2f} s from nothing to the first token"),
            ("file size", size_text(report.file_bytes)),
            ("peak memory", size_text(report.peak_rss_bytes)),
            ("decode limit", _limit(report.roofline.decode, "MB", 1e6, "GB/s read")),
            *(
                [("prefill limit", _limit(report.roofline.prefill, "million products", 1e6, "G/s"))]
                if report.roofline.prefill is not None
                else []
            ),
        ]
    )


def _limit(limit: Limit, what: str, unit: float, rate: str) -> str:
    return (
        f"{limit.tokens_per_s:.1f} tok/s, {limit.reached:.0%} reached "
        f"({limit.per_token / unit:,.0f} {what} a token, {limit.per_s / 1e9:,.1f} {rate})"
    )


def _spread(spread: Spread, unit: str, digits: int) -> str:
    low, high = f"{spread.low:.{digits}f}", f"{spread.high:.{digits}f}"
    return f"{spread.median:.{digits}f} {unit} (median; {low} to {high})"
