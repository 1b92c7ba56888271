"""The line at which a user types: keys, history, completion, and Ctrl-C while an answer comes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

if TYPE_CHECKING:
    from puna.cli.talker import Answer

__all__ = ["cancelling", "prompt_session", "quoted"]

_QUOTES = '"""'


def prompt_session(history: Path, words: Sequence[str]) -> PromptSession[str]:
    """A prompt where Enter sends, and Alt-Enter and Ctrl-J begin a new line.

    Args:
        history: file that keeps what was typed; without the right to write it, nothing is kept.
        words: what Tab completes at the beginning of the text.
    """
    return PromptSession(
        "> ",
        multiline=True,
        prompt_continuation="  ",
        key_bindings=_keys(),
        history=_history(history),
        completer=WordCompleter(words, sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
    )


def quoted(text: str) -> str | None:
    """What stands between a first and a last line of three double quotes; None without such lines."""
    lines = text.strip().split("\n")
    if len(lines) >= 2 and lines[0].strip() == lines[-1].strip() == _QUOTES:
        return "\n".join(lines[1:-1])
    return None


@contextmanager
def cancelling(stream: Answer) -> Iterator[None]:
    """Let Ctrl-C end an answer instead of the program, and other keys show nothing, in a ``with`` block."""
    before = signal.signal(signal.SIGINT, lambda *_: stream.cancel())
    try:
        with _no_echo():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        is_open = buffer.text.split("\n")[0].strip() == _QUOTES and quoted(buffer.text) is None
        if is_open:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What people say to a model is theirs alone.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keep keys that are pressed during an answer off the screen, and as they are for the next prompt."""
    try:
        import termios
    except ImportError:  # not on Windows
        yield
        return
    handle = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(handle)
    quiet = [*before]
    quiet[0] &= ~termios.ICRNL  # Enter would become Ctrl-J
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(handle, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSANOW, before)
