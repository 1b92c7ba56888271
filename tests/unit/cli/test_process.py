"""Notes of servers, whose processes may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from puna.cli.process import end, noted
from puna.errors import ServerError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")

FIRST, SECOND = "srv_" + "1" * 24, "srv_" + "2" * 24
SERVER = """
import signal, sys, time
from puna.cli.process import noted
signal.signal(signal.SIGTERM, lambda *_: print("ending", flush=True))
with noted(sys.argv[1]):
    print("noted", flush=True)
    while True:
        time.sleep(600)
"""


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path))
    return tmp_path / "servers"


@contextmanager
def noted_process(instance: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is noted as a server, and does not end by itself."""
    command = [sys.executable, "-c", SERVER, instance]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "noted\n"
            yield process
        finally:
            process.kill()


def test_nobody_waits_for_a_server_that_was_killed(notes: Path) -> None:
    with noted_process(FIRST) as process:
        waiting = threading.Thread(target=end, args=(FIRST,), daemon=True)
        waiting.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        process.kill()
        waiting.join(20)
        assert not waiting.is_alive()
    assert not list(notes.iterdir())


def test_a_killed_server_s_number_may_be_another_process_s(notes: Path) -> None:
    notes.mkdir()
    (notes / FIRST).write_text(str(os.getpid()))
    with pytest.raises(ServerError, match="not started by you"):
        end(FIRST)


def test_notes_of_killed_servers_are_cleared_away(notes: Path) -> None:
    with noted_process(FIRST) as process:
        with noted(SECOND):
            assert {note.name for note in notes.iterdir()} == {FIRST, SECOND}
        process.kill()
        process.wait()
        (notes / "somebody's").mkdir()
        with noted(SECOND):
            assert {note.name for note in notes.iterdir()} == {SECOND, "somebody's"}
