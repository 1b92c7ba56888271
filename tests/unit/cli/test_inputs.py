from __future__ import annotations

import io
import sys

import pytest

from puna.cli.inputs import model_and_prompt, piped_text
from puna.errors import ConfigError, UnknownModelError
from puna.models.catalogue import DEFAULT_MODEL


def test_which_argument_is_what(tmp_path):
    path = tmp_path / "my model"
    path.mkdir()
    assert model_and_prompt(None, None, "") == (DEFAULT_MODEL, "")
    assert model_and_prompt("smollm2", None, "") == ("smollm2", "")
    assert model_and_prompt("Why do llamas hum?", None, "") == (DEFAULT_MODEL, "Why do llamas hum?")
    assert model_and_prompt(str(path), None, "") == (str(path), "")
    assert model_and_prompt("my model.gguf", None, "") == ("my model.gguf", "")
    assert model_and_prompt("any", "prompt", "") == ("any", "prompt")


def test_piped_text_comes_behind_the_prompt_or_is_it():
    assert model_and_prompt("smollm2", None, "piped") == ("smollm2", "piped")
    assert model_and_prompt("Sum this up:", None, "piped") == (DEFAULT_MODEL, "Sum this up:\n\npiped")
    assert model_and_prompt("smollm2", "Sum up:", " \n") == ("smollm2", "Sum up:")


def test_what_is_refused():
    with pytest.raises(UnknownModelError, match="no model is called 'Hello'"):
        model_and_prompt("Hello", None, "")
    with pytest.raises(UnknownModelError, match="no model is called 'Hello '"):
        model_and_prompt("Hello ", None, "piped")
    with pytest.raises(ConfigError, match="the prompt must have some text in it, got '  '"):
        model_and_prompt("smollm2", "  ", "piped")


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_the_pipe_loses_one_newline(monkeypatch):
    pipe(monkeypatch, "\n  ñandú\n\n".encode())
    assert piped_text() == "\n  ñandú\n"


def test_a_pipe_that_is_not_text_or_too_long(monkeypatch):
    pipe(monkeypatch, b"ab\xff")
    with pytest.raises(ConfigError, match="must be UTF-8, got byte 0xff at 2"):
        piped_text()
    monkeypatch.setattr("puna.cli.inputs._MAX_PIPED_BYTES", 4)
    pipe(monkeypatch, b"12345")
    with pytest.raises(ConfigError, match="may have 4 bytes, got more"):
        piped_text()
