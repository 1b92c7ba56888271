from __future__ import annotations

import json
import math
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from puna.cli.output import one_line, print_json, print_rows, say, size_text, visible


def test_control_characters_do_not_reach_a_terminal():
    assert visible("a\x1b[2Jb") == "a\u241b[2Jb"
    assert visible("\x1b]0;title\x07") == "\u241b]0;title\u2407"
    assert visible("\x9b31m\x7f") == "\ufffd31m\ufffd"
    assert visible("one\r\ntwo\tthree") == "one\ntwo\tthree"


@given(st.text())
def test_only_newline_and_tab_are_left_of_the_control_characters(text: str):
    assert {c for c in visible(text) if unicodedata.category(c) == "Cc"} <= {"\n", "\t"}
    assert visible(visible(text)) == visible(text)


def test_every_control_character():
    controls = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Cc"]
    assert len(controls) == 65
    assert {c for c in visible("".join(controls)) if unicodedata.category(c) == "Cc"} == {"\n", "\t"}


def test_say_and_rows(capsys):
    say("a\x1bb")
    print_rows([("one", "1"), ("three", "3\x07")])
    assert capsys.readouterr() == ("one    1\nthree  3\u2407\n", "a\u241bb\n")


def test_json_is_ascii(capsys):
    print_json({"text": "\x9bñ"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"text": "\x9bñ"}


def test_json_has_null_where_a_number_is_not_finite(capsys):
    print_json({"a": [1.5, math.inf], "b": {"c": (-math.inf, math.nan)}})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None], "b": {"c": [None, None]}}


def test_small_texts():
    assert one_line("a\nb") == "a b"
    assert (size_text(143_844_096), size_text(8_030_000_000)) == ("143.8 MB", "8.03 GB")
