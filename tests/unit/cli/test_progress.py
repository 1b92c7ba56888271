from __future__ import annotations

import io
import sys

import pytest

from puna.cli.progress import FetchProgress, PackProgress
from puna.models.catalogue import CATALOGUE


def test_a_download_without_a_terminal_is_told_in_lines(capsys):
    with FetchProgress() as progress:
        progress.begin(CATALOGUE[0])
        progress.step("downloading it")
        for done in range(0, 101, 5):
            progress.advance(done * 1_000_000, 100_000_000)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:3] == [
        "fetching smollm2-135m-instruct: 92.9 MB, licence Apache-2.0",
        "  downloading it",
        "  10.0 MB of 100.0 MB",
    ]
    assert len(lines) == 12


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
        progress.begin(CATALOGUE[0])
        progress.advance(50_000_000, 100_000_000)
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
