"""Markdown that appears while it is written: finished blocks are printed once, only the last one moves."""

from __future__ import annotations

import re
import time
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

from puna.cli.output import visible

__all__ = ["MarkdownStream", "end_of_finished"]

_FRAME_S = 0.1  # the engine wants the CPUs more than the screen does
_FENCE = re.compile(r"\s*(`{3,}|~{3,})(.*)")


def end_of_finished(text: str) -> int:
    """Find where the last block of a Markdown text begins, which what follows may still change.

    A block ends at an empty line that a line without indentation follows, unless a code fence is open:
    what is indented may belong to a list item above it.

    Args:
        text: the beginning of a text.

    Returns:
        Number of characters that no continuation changes.
    """
    end = offset = 0
    fence, was_blank = "", False
    for line in text.split("\n"):
        if was_blank and not fence and line[:1].strip():
            end = offset
        match = _FENCE.fullmatch(line)
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not match[2].strip():
            fence = ""
        was_blank = not line.strip()
        offset += len(line) + 1
    return end


class MarkdownStream:
    """Prints a text that comes in pieces as Markdown; to be used in a ``with`` block.

    The block that is still growing lies in a region that is drawn anew and never higher than the screen:
    of a longer block its end is shown until the block is finished.
    """

    def __init__(self, console: Console) -> None:
        """Print nothing yet.

        Args:
            console: where to print.
        """
        self._console = console
        self._text = ""
        self._drawn_s = 0.0
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Print what is left; the text counts as finished, however the block ended."""
        self._live.update("")
        self._live.stop()
        self._console.print(_Block(self._text), end="")

    def feed(self, text: str) -> None:
        """Take the next piece of the text."""
        self._text += visible(text)
        now = time.monotonic()
        if now - self._drawn_s >= _FRAME_S:
            self._drawn_s = now
            self._draw()

    def _draw(self) -> None:
        end = end_of_finished(self._text)
        if end:
            self._console.print(_Block(self._text[:end]))
            self._console.print()
            self._text = self._text[end:]
        self._live.update(_Block(self._text, self._console.height - 1), refresh=True)


class _Block:
    """A Markdown text without the empty lines around it, or just its last lines."""

    def __init__(self, text: str, n_lines: int = 0) -> None:
        # Without hyperlinks, a link shows where it leads.
        self._content = Markdown(text, hyperlinks=False)
        self._n_lines = n_lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options, pad=False)
        full = [i for i, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        shown = lines[full[0] : full[-1] + 1] if full else []
        for line in shown[-self._n_lines :]:
            yield from line
            yield Segment.line()
