"""`puna serve` in a process of its own, and a client that measures one streamed answer of it."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

__all__ = ["PUNA", "Answer", "Served", "ask", "completion_body", "free_port", "random_prompt", "serving"]

PUNA = ("puna", "serve", "--port", "0")
"""The command that serves, as Python's ``-m`` takes it."""
_FIRST_TOKEN_ID = 8  # the ids that begin, end or pad a text often lie below


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs.

    Attributes:
        url: its base, with ``/v1``.
        model: the name of its only model.
        pid: of its process.
    """

    url: str
    model: str
    pid: int

    def resident_bytes(self) -> int:
        """Memory that the server holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]

    def figures(self, key: str = "none") -> dict[str, float]:
        """What it says of its load: ``running``, ``waiting``, ``cache_tokens_reserved``..."""
        headers = {"Authorization": f"Bearer {key}"}
        text = httpx2.get(self.url.removesuffix("/v1") + "/metrics", headers=headers).text
        return {name: float(value) for name, value in re.findall(r'puna_(\w+)\{model="[^"]*"\} (\S+)', text)}


@dataclass(slots=True)
class Answer:
    """What came of one request.

    Attributes:
        status: HTTP's.
        text: of the answer.
        asked_s: when, by the performance counter.
        first_s: from the request to its first piece of text; None: none came.
        whole_s: from the request to its end, or to the client's leaving.
        retry_after_s: when to come again, as whoever is refused is told.
        is_ended: it came to its end; otherwise the client left.
    """

    status: int
    text: str = ""
    asked_s: float = 0.0
    first_s: float | None = None
    whole_s: float = 0.0
    retry_after_s: float = 0.0
    is_ended: bool = False


def random_prompt(choose: random.Random, n_tokens: int, vocabulary: int) -> list[int]:
    """Token ids below `vocabulary`."""
    return [choose.randrange(_FIRST_TOKEN_ID, vocabulary) for _ in range(n_tokens)]


def completion_body(server: Served, prompt: Sequence[int] | str, new_tokens: int) -> dict[str, object]:
    """A request for a greedy, streamed completion that tells its tokens at the end."""
    return {
        "model": server.model, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(model: str, options: Sequence[str] = (), program: Sequence[str] = PUNA) -> Iterator[Served]:
    """Start a server, and stop it behind the ``with`` block.

    Args:
        model: as the command line takes it.
        options: further ones of ``puna serve``.
        program: another Python module that serves, and says so in the same words; with its own options.
    """
    command = [sys.executable, "-m", *program, model, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.fullmatch(r"serving (\S+) at (http://\S+/v1)\n", line)
            if found is None:
                raise RuntimeError(f"`{' '.join(command[1:])}` did not start; it said {line!r}")
            yield Served(found[2], found[1], process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)


async def ask(
    client: httpx2.AsyncClient,
    server: Served,
    prompt: str,
    max_tokens: int,
    leave_after: int | None = None,
    key: str = "none",
) -> Answer:
    """Stream one answer.

    Args:
        client: holds the connections.
        server: who is asked.
        prompt: the user's message.
        max_tokens: of the answer.
        leave_after: hang up when so many pieces of text have come.
        key: says who asks, where the server knows keys.
    """
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": True,
    }
    began, pieces = time.perf_counter(), 0
    headers = {"Authorization": f"Bearer {key}"}
    async with client.stream(
        "POST", f"{server.url}/chat/completions", json=body, headers=headers
    ) as response:
        answer = Answer(response.status_code, asked_s=began)
        answer.retry_after_s = float(response.headers.get("Retry-After", 0))
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                answer.is_ended = True
            elif response.status_code == 200 and line.startswith("data: "):
                text = _text_of(line)
                if text and answer.first_s is None:
                    answer.first_s = time.perf_counter() - began
                answer.text += text
                pieces += bool(text)
                if leave_after is not None and pieces >= leave_after:
                    break
    answer.whole_s = time.perf_counter() - began
    return answer


def _text_of(line: str) -> str:
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""
