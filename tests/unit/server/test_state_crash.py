"""A server that is killed while it writes: what it acknowledged is there afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

STORED: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hum"}],
    "max_tokens": 1,
    "store": True,
}


@contextmanager
def serving(folder: Path, url: str | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`puna serve` as a process of its own, and its base URL."""
    command = [sys.executable, "-m", "puna", "serve", str(folder), "--port", "0", "--threads", "1"]
    environment = {**os.environ, **({"DATABASE_URL": url} if url else {})}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as started:
        try:
            assert started.stdout is not None
            found = re.search(r"http://\S+/v1", started.stdout.readline())
            assert found
            yield started, found[0]
        finally:
            started.kill()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_kill_loses_no_acknowledged_write(
    tiny_folder: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    acknowledged: list[str] = []
    enough = threading.Event()
    with serving(tiny_folder, url) as (server, base):

        def write() -> None:
            with httpx2.Client(base_url=base, timeout=30) as http:
                while True:
                    try:
                        answer = http.post("/chat/completions", json=STORED)
                    except httpx2.HTTPError:
                        return  # the server is gone
                    acknowledged.append(answer.json()["id"])
                    if len(acknowledged) >= 40:
                        enough.set()

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        assert enough.wait(60)
        server.send_signal(signal.SIGKILL)
        for writer in writers:
            writer.join()
    with serving(tiny_folder, url) as (_, base), httpx2.Client(base_url=base, timeout=30) as http:
        assert len(acknowledged) >= 40
        missing = [key for key in acknowledged if http.get(f"/chat/completions/{key}").json()["id"] != key]
        assert missing == []
        assert http.post("/chat/completions", json=STORED).status_code == 200
