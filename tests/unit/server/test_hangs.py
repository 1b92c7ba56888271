"""What hangs for good does not keep the process: a watch beside the event loop ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psycopg
import pytest
from tests.unit.server.test_end import is_refused, process
from tests.unit.server.test_life import wait_for

from puna.models.store import home

BLOCKED = """
import time
from puna.server import run
from puna.server.watch.metrics import Metrics
run._END_S = 0.5
Metrics.text = lambda _: print("blocked", flush=True) or time.sleep(3600)
from puna.cli import main
main()
"""

WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'puna_conversations'::regclass"


@contextmanager
def blocked(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A server whose event loop hangs."""
    with process(folder, *options, program=("-c", BLOCKED)) as (server, url), ThreadPoolExecutor() as threads:
        threads.submit(httpx2.get, url.removesuffix("v1") + "metrics", timeout=60)
        assert server.stdout is not None
        assert server.stdout.readline() == "blocked\n"
        try:
            yield server
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("drain", "signals"), [("0.3", (signal.SIGTERM,)), ("300", (signal.SIGINT, signal.SIGINT))]
)
def test_the_process_ends_though_the_event_loop_hangs(
    tiny_folder: Path, drain: str, signals: Sequence[int]
) -> None:
    with blocked(tiny_folder, "--drain", drain) as server:
        for each in signals:
            server.send_signal(each)
            time.sleep(0.5)  # or both would be one
        assert server.wait(20) == 1
    assert not list((home() / "servers").iterdir())


def test_the_process_ends_though_its_note_cannot_be_deleted(tiny_folder: Path) -> None:
    with blocked(tiny_folder, "--drain", "0.3") as server:
        (note,) = (home() / "servers").iterdir()
        note.unlink()
        note.mkdir()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 1


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_the_process_ends_though_the_database_does_not_answer(
    tiny_folder: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, signals: Sequence[int]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    with (
        process(tiny_folder, "--drain", "0.3") as (server, url),
        psycopg.connect(postgres_url) as other,
        ThreadPoolExecutor() as threads,
    ):
        httpx2.post(f"{url}/conversations", json={}).raise_for_status()  # there are tables now
        other.execute("LOCK TABLE puna_conversations IN ACCESS EXCLUSIVE MODE")
        asked = threads.submit(httpx2.post, f"{url}/conversations", json={}, timeout=60)
        wait_for(lambda: other.execute(WAITING).fetchall())
        ((waits,),) = other.execute(WAITING).fetchall()
        os.kill(waits, signal.SIGSTOP)  # or it would end by itself what waits for long
        try:
            for each in signals:
                server.send_signal(each)
                wait_for(lambda: is_refused(url))
            assert server.wait(30) == 1
        finally:
            os.kill(waits, signal.SIGCONT)
        assert (asked.result().status_code, asked.result().json()["error"]["code"]) == (503, "shutting_down")
    assert not list((home() / "servers").iterdir())
