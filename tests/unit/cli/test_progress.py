from __future__ import annotations

import io
import sys

import pytest

from puna.cli.progress import FetchProgress, PackProgress
from puna.models.progress import Fetch, Transfer

FETCH = Fetch(
    name="tiny",
    origin="pypi:tiny",
    n_bytes=92_900_000,
    licence="MIT",
    licence_url="https://example.com/mit",
    duties=("be kind", "name it"),
)


def transfer(done: int, total: int, rate: float | None = None) -> Transfer:
    remaining = None if rate is None else (total - done) / rate
    return Transfer(done_bytes=done, total_bytes=total, bytes_per_s=rate, remaining_s=remaining)


def test_a_download_without_a_terminal_is_told_in_lines(capsys):
    with FetchProgress() as progress:
        progress.begin(FETCH)
        progress.step("downloading it")
        for done in range(0, 101, 5):
            progress.advance(transfer(done * 1_000_000, 100_000_000, 2e6 if done > 10 else None))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:6] == [
        "fetching tiny from pypi:tiny: 92.9 MB, licence MIT (https://example.com/mit)",
        "  be kind",
        "  name it",
        "  downloading it",
        "  10.0 MB of 100.0 MB",
        "  20.0 MB of 100.0 MB, 2.0 MB/s, 40 s left",
    ]
    assert len(lines) == 14


def test_a_licence_that_is_not_known(capsys):
    with FetchProgress() as progress:
        progress.begin(Fetch(name="x", origin="hf:a/x", n_bytes=5_000_000))
    assert capsys.readouterr().err == (
        "fetching x from hf:a/x: 5.0 MB, the licence is told where it is from\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_download_at_a_terminal_has_a_bar_that_goes_away(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with FetchProgress() as progress:
        progress.begin(FETCH)
        progress.advance(transfer(50_000_000, 100_000_000))
        assert progress._bar is not None
        assert progress._bar.tasks[0].completed == 50_000_000
        progress.step("unpacking")
        assert progress._bar is None
    assert "50.0/100.0 MB" in terminal.getvalue()


def test_packing_is_told_only_where_it_takes_long(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with PackProgress("packing") as progress:
        for done in range(1, 11):
            progress(done, 10)
    assert terminal.getvalue() == ""
    monkeypatch.setattr("puna.cli.progress._QUIET_S", -1.0)
    with PackProgress("packing") as progress:
        for done in range(1, 10):
            progress(done, 10)
        assert progress._bar is not None
    assert progress._bar is None
    assert "9/10" in terminal.getvalue()
