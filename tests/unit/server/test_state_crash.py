"""A server that is killed while it writes: what it acknowledged is there afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

HUM: Any = {"role": "user", "content": "hum"}
RESPONSE: Any = {"model": "tiny", "input": "hum", "max_output_tokens": 16}
CHAT: Any = {"model": "tiny", "messages": [HUM], "max_tokens": 1, "store": True}


def chat(http: httpx2.Client) -> str:
    return f"/chat/completions/{http.post('/chat/completions', json=CHAT).json()['id']}"


def streamed_response(http: httpx2.Client) -> str:
    """A response that its stream says is kept: the last event has come."""
    events = http.post("/responses", json={**RESPONSE, "stream": True}).text
    last = next(line for line in reversed(events.splitlines()) if line.startswith("data: {"))
    return f"/responses/{json.loads(last.removeprefix('data: '))['response']['id']}"


def item(http: httpx2.Client) -> str:
    conversation = http.post("/conversations", json={}).json()["id"]
    items = f"/conversations/{conversation}/items"
    return f"{items}/{http.post(items, json={'items': [HUM]}).json()['data'][0]['id']}"


def prompt(http: httpx2.Client) -> str:
    return f"/prompts/{http.post('/prompts', json={'prompt': 'hum'}).json()['prompt_id']}"


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


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_kill_loses_no_acknowledged_write(
    tiny_folder: Path, request: pytest.FixtureRequest, database: str
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgres" else None
    acknowledged: list[str] = []
    with serving(tiny_folder, url) as (server, base):

        def write(kind: Callable[[httpx2.Client], str], enough: threading.Event) -> None:
            n_written = 0
            with httpx2.Client(base_url=base, timeout=30) as http:
                while True:
                    try:
                        path = kind(http)
                    except (httpx2.HTTPError, StopIteration):
                        return  # the server is gone
                    acknowledged.append(path)
                    n_written += 1
                    if n_written == 10:
                        enough.set()

        kinds = {each: threading.Event() for each in (chat, streamed_response, item, prompt)}
        writers = [threading.Thread(target=write, args=each) for each in kinds.items()]
        for writer in writers:
            writer.start()
        assert all(enough.wait(60) for enough in kinds.values())
        server.send_signal(signal.SIGKILL)
        for writer in writers:
            writer.join()
    with serving(tiny_folder, url) as (_, base), httpx2.Client(base_url=base, timeout=30) as http:
        assert len(acknowledged) >= 40
        assert [path for path in acknowledged if http.get(path).status_code != 200] == []
        assert http.post("/chat/completions", json=CHAT).status_code == 200
