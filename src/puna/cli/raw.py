"""A conversation as the model reads and writes it, special tokens among the text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from puna.cli.output import visible

if TYPE_CHECKING:
    from puna.cli.talker import Answer
    from puna.llama import Llama

__all__ = ["print_raw", "print_segments"]


def print_raw(llama: Llama, prompt: list[int], stream: Answer) -> None:
    """Print a prompt, and behind it the answer as it comes; the token that ends an answer is not in it.

    Args:
        llama: the model.
        prompt: what it reads.
        stream: its answer.
    """
    from puna.prompt.visible import VisibleStream, visible_ids

    print_segments(visible_ids(llama.tokenizer, prompt))
    answer = VisibleStream(llama.tokenizer)
    try:
        for event in stream:
            for token in event.tokens:
                print_segments(answer.push(token))
        print_segments(answer.finish())
    finally:
        typer.echo()


def print_segments(segments: list[tuple[str, bool]]) -> None:
    """Print texts to stdout, special tokens among them in colour where a terminal shows it."""
    for text, is_special in segments:
        shown = visible(text)
        typer.echo(typer.style(shown, fg="cyan", bold=True) if is_special else shown, nl=False)
    sys.stdout.flush()
