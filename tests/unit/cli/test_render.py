from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from puna.cli import render
from puna.cli.render import MarkdownStream, end_of_finished


@pytest.mark.parametrize(
    ("finished", "rest"),
    [
        ("", "one line"),
        ("", "a paragraph\nof two lines\n\n"),
        ("first\n\n", "second"),
        ("first\n\nsecond\n\n", "- third"),
        ("- item\n\n  more of it\n\n", "after"),
        ("", "- item\n\n  more of it"),
        ("", "```\ncode\n\nmore code\n"),
        ("```\ncode\n\nmore code\n```\n\n", "after"),
        ("", "````\n```\n\nstill code"),
        ("", "~~~\n```\n\nstill code"),
        ("first\n \t\n", "second"),
    ],
)
def test_where_the_last_block_begins(finished: str, rest: str):
    assert end_of_finished(finished + rest) == len(finished)


@given(st.lists(st.sampled_from(["a", " ", "\n", "\n\n", "```", "- ", "~~~", "x y"])), st.integers(0, 40))
def test_what_is_finished_stays_so(pieces: list[str], n: int):
    text = "".join(pieces)
    end = end_of_finished(text[:n])
    assert end <= end_of_finished(text)
    assert end_of_finished(text) >= end + end_of_finished(text[end:]) or not text[end:]


class Screen:
    """A terminal that knows what rich's live regions use; lines that scrolled away stay readable."""

    def __init__(self, height: int) -> None:
        self.lines, self.row, self.column, self.height = [""], 0, 0, height

    def write(self, output: str) -> None:
        for sequence, character in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|(.)", output, re.DOTALL):
            if sequence:
                self._control(sequence)
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif character == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
                self.column += 1

    def _control(self, sequence: str) -> None:
        if sequence == "1A":
            # What has left the screen cannot be reached again: that is how text comes to be repeated.
            assert self.row - 1 >= len(self.lines) - self.height
            self.row -= 1
        elif sequence == "2K":
            self.lines[self.row] = ""
        else:
            assert sequence[-1] in "mhl"

    def text(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


LONG = "\n".join(f"    line {i}" for i in range(40))
TEXT = f"# Title\n\nSome *words*.\n\n```python\n{LONG}\n```\n\n1. one\n\n2. two\n\nThe end\x1b[2J."


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_text_longer_than_the_screen_is_there_once(monkeypatch, piece: int):
    monkeypatch.setattr(render, "_FRAME_S", 0.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=40, height=10, color_system=None)
    with MarkdownStream(console) as stream:
        for i in range(0, len(TEXT), piece):
            stream.feed(TEXT[i : i + piece])
    screen = Screen(10)
    screen.write(output.getvalue())
    shown = [line.strip() for line in screen.text()]
    assert [line for line in shown if line.startswith("line ")] == [f"line {i}" for i in range(40)]
    assert shown[-3:] == ["1 one", "2 two", "The end\u241b[2J."]
    assert shown.count("Some words.") == 1


def test_a_link_shows_where_it_leads():
    output = io.StringIO()
    with MarkdownStream(Console(file=output, width=80)) as stream:
        stream.feed("[bank](https://evil.example)")
    assert output.getvalue().strip() == "bank (https://evil.example)"
