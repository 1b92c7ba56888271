"""Loading a model while its user is told what takes time: the download and the packing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from puna.cli.output import duration_text, say, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from puna.llama import Llama
    from puna.models.progress import Fetch, Transfer

__all__ = ["FetchProgress", "OnBar", "PackProgress", "load_model"]

_QUIET_S = 0.5  # work shorter than this needs no bar


def load_model(
    name: str,
    *,
    format: str,
    threads: int | None,
    context: int | None,
    cache: str,
    speculation: str,
    draft: str | None,
) -> Llama:
    """`puna.load`, with progress on stderr."""
    from puna.llama import load

    with FetchProgress() as fetching, PackProgress("packing") as packing:
        return load(
            name,
            format=format,
            threads=threads,
            context=context,
            cache=cache,
            speculation=speculation,
            draft=draft,
            fetching=fetching,
            packing=packing,
        )


class OnBar:
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


class FetchProgress(OnBar):
    """Tells of a download on stderr, with a bar at a terminal; implements `puna.models.store.Progress`."""

    def __init__(self) -> None:
        """Print nothing until there is something to fetch."""
        super().__init__()
        self._told_tenths = 0

    def begin(self, fetch: Fetch) -> None:
        """Say what is fetched, how large it is, under which licence, and what that asks."""
        licence = f"licence {fetch.licence}" if fetch.licence else "the licence is told where it is from"
        where = f" ({fetch.licence_url})" if fetch.licence_url else ""
        say(f"fetching {fetch.name} from {fetch.origin}: {size_text(fetch.n_bytes)}, {licence}{where}")
        for duty in fetch.duties:
            say(f"  {duty}")

    def step(self, text: str) -> None:
        """Say what is done next."""
        self._hide()
        say(f"  {text}")

    def advance(self, transfer: Transfer) -> None:
        """Move the bar, or print a line for every tenth where stderr is no terminal."""
        done, total = transfer.done_bytes, transfer.total_bytes
        if sys.stderr.isatty():
            self._show("  ", done, total, is_bytes=True)
            return
        tenths = 10 * done // max(total, 1)
        if tenths > self._told_tenths:
            self._told_tenths = tenths
            say(f"  {size_text(done)} of {size_text(total)}{_speed(transfer)}")


def _speed(transfer: Transfer) -> str:
    if transfer.bytes_per_s is None or transfer.remaining_s is None:
        return ""
    return f", {size_text(int(transfer.bytes_per_s))}/s, {duration_text(transfer.remaining_s)} left"


class PackProgress(OnBar):
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
