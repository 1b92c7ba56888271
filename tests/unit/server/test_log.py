"""The log while nobody reads it: nothing waits for that, and what was lost is counted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx2
import pytest
from tests.unit.server.test_end import process

from puna.server.watch import log as module
from puna.server.watch.log import log, log_in_thread

PIPE_BYTES = 4096


@contextmanager
def unread() -> Iterator[BinaryIO]:
    """stderr as a small pipe in a ``with`` block, and its other end."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    before = os.dup(2)
    os.dup2(theirs, 2)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        try:
            yield file
        finally:
            os.dup2(before, 2)
            os.close(before)


def test_lines_that_wait_are_written_in_their_order_and_lost_ones_counted() -> None:
    n_lines = 3 * module._MAX_LINES  # so many wait, and so many may be just being written

    def many() -> None:
        for n in range(n_lines):
            log("n", n=n)

    with unread() as file:
        with log_in_thread():
            thread = threading.Thread(target=many, daemon=True)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
            lines = [json.loads(file.readline())]
            while lines[-1]["event"] != "log_lost":
                lines.append(json.loads(file.readline()))
            log("n", n=n_lines)
        lines.append(json.loads(file.readline()))
    *told, lost, last = lines
    assert [line["n"] for line in told] == list(range(n_lines - lost["lines"]))
    assert module._MAX_LINES <= len(told) <= 2 * module._MAX_LINES
    assert last["n"] == n_lines


def test_what_waits_at_the_end_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    with log_in_thread():
        for n in range(100):
            log("n", n=n)
    assert [json.loads(line)["n"] for line in capfd.readouterr().err.splitlines()] == list(range(100))


def test_the_server_answers_and_ends_well_though_nobody_reads_its_log(tiny_folder: Path) -> None:
    with process(tiny_folder) as (server, url), httpx2.Client(timeout=20) as http:
        assert server.stderr is not None
        fcntl.fcntl(server.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for _ in range(100):  # a line each, some 150 bytes
            http.get(f"{url}/health").raise_for_status()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_who_reads_the_log_late_has_all_of_it(tiny_folder: Path) -> None:
    with process(tiny_folder) as (server, url), httpx2.Client(timeout=20) as http:
        assert server.stderr is not None
        fcntl.fcntl(server.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        ids = [http.get(f"{url}/health").headers["x-request-id"] for _ in range(100)]
        lines = [json.loads(server.stderr.readline()) for _ in range(101)]
    assert [line["event"] for line in lines] == ["loaded", *["request"] * 100]
    assert [line["request"] for line in lines[1:]] == ids
