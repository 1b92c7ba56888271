"""How soon a full server says that it is full, to many that ask at once.

    python -m benchmarks.refusals smollm2-135m-instruct

One long answer takes the only place; then clients on connections of their own ask in the same moment, several
times. They are plain sockets in one thread, since a client's own time counts as the server's here.
"""

from __future__ import annotations

import argparse
import json
import selectors
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.plain_client import connect, post
from benchmarks.served import Served, serving

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class Burst:
    """Of one round.

    Attributes:
        median_ms: from a request to its refusal.
        slowest_ms: the longest of them.
        refused: how many there were.
    """

    median_ms: float
    slowest_ms: float
    refused: int


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    with serving(given.model, ["--max-running", "1", "--max-waiting", "0"]) as server:
        asked = _request(server, {"max_tokens": 1})
        with _busy(server):
            rounds = [_burst(server, asked, given.clients) for _ in range(given.rounds + 1)]
    for name in ("median_ms", "slowest_ms"):
        times = [getattr(each, name) for each in rounds[1:]]  # the first one warms
        told = f"{statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})"
        print(f"{name.removesuffix('_ms')} of {given.clients} refusals, {given.rounds} rounds: {told}")
    if given.json is not None:
        figures = {"machine": describe(), "rounds": [asdict(each) for each in rounds[1:]]}
        given.json.write_text(json.dumps(figures, indent=1))
    accepted = sum(given.clients - each.refused for each in rounds)
    if accepted:
        print(f"{accepted} were not refused", file=sys.stderr)
    return 1 if accepted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.refusals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="as `puna serve` takes it")
    parser.add_argument("--clients", type=positive, default=90, help="at once (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=9, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def _request(server: Served, more: dict[str, object]) -> bytes:
    messages = [{"role": "user", "content": "Why do llamas hum?"}]
    body = {"model": server.model, "messages": messages, "stream": True, **more}
    return post(server, "/chat/completions", body)


@contextmanager
def _busy(server: Served) -> Iterator[None]:
    """One answer after the other during a ``with`` block, so that the place is always taken."""
    request = _request(server, {"temperature": 1, "repetition_penalty": 1.5})
    is_over, has_begun = threading.Event(), threading.Event()

    def hold() -> None:
        while not is_over.is_set():
            with connect(server) as connection:
                connection.sendall(request)
                while not is_over.is_set() and (data := connection.recv(65536)):
                    has_begun.set()
                    if b"[DONE]" in data:
                        break

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        has_begun.wait()
        yield
    finally:
        is_over.set()
        thread.join()


def _burst(server: Served, request: bytes, clients: int) -> Burst:
    with selectors.DefaultSelector() as waiting:
        began: dict[int, float] = {}
        for _ in range(clients):
            connection = connect(server)
            waiting.register(connection, selectors.EVENT_READ)
            began[connection.fileno()] = time.perf_counter()
            connection.sendall(request)
        times, refused = [], 0
        while waiting.get_map():
            for key, _ in waiting.select():
                times.append(1000 * (time.perf_counter() - began[key.fd]))
                connection = key.fileobj  # type: ignore[assignment]
                refused += connection.recv(65536).startswith(b"HTTP/1.1 429 ")
                waiting.unregister(connection)
                connection.close()
    return Burst(statistics.median(times), max(times), refused)


if __name__ == "__main__":
    sys.exit(main())
