"""What the server adds to the engine: the same request through HTTP and without it, in turn.

The third is a bare HTTP server, which does nothing but hand a request on to the engine: what it adds, every
server in Python does.

    python -m benchmarks.overhead smollm2-135m-instruct

One request at a time, decoded greedily and streamed. The client is the standard library's, since its own time
counts as the server's here.
"""

from __future__ import annotations

import argparse
import http.client
import json
import queue
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.served import PUNA, Served, completion_body, free_port, random_prompt, serving
from puna.engine.request import Event, Request, SamplingParams
from puna.llama import Llama, load

__all__ = ["main"]

_ACCEPT_S = 0.02  # for a server to take a connection


@dataclass(frozen=True, slots=True)
class Times:
    """Of one answer.

    Attributes:
        first_ms: from the request to the first text.
        token_ms: from one token to the next, the mean over the answer.
    """

    first_ms: float
    token_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    rounds = _measured(given)
    for name, unit in (("first_ms", "to the first text"), ("token_ms", "a token")):
        alone = statistics.median(getattr(times["engine"], name) for times in rounds)
        added, least = (
            statistics.median(getattr(times[kind], name) - getattr(times["engine"], name) for times in rounds)
            for kind in ("server", "bare")
        )
        print(
            f"{unit}: engine {alone:.2f} ms, the server adds {added:.2f} ms ({added / alone:.1%}), "
            f"a bare one {least:.2f} ms"
        )
    if given.json is not None:
        figures = [{kind: asdict(each) for kind, each in times.items()} for times in rounds]
        given.json.write_text(json.dumps({"machine": describe(), "rounds": figures}, indent=1))
    return 0


def _measured(given: argparse.Namespace) -> list[dict[str, Times]]:
    """What each kind took, round by round."""
    choose = random.Random(given.seed)
    threads = [] if given.threads is None else ["--threads", str(given.threads)]
    programs = {"server": PUNA, "bare": ("benchmarks.bare_server", "--port", str(free_port()))}
    rounds: list[dict[str, Times]] = []
    with ExitStack() as stack:
        llama = stack.enter_context(load(given.model, threads=given.threads))
        ask: dict[str, Callable[[list[int], int], Times]] = {"engine": partial(_without_http, llama)}
        for kind, program in programs.items():
            served = stack.enter_context(serving(given.model, threads, program))
            connection = stack.enter_context(closing(http.client.HTTPConnection(urlsplit(served.url).netloc)))
            ask[kind] = partial(_through_http, connection, served)
        kinds = list(ask)
        for _ in range(given.rounds + 1):
            # The same for all, which have caches of their own; each begins in its turn.
            prompt = random_prompt(choose, given.prompt_tokens, given.vocabulary)
            rounds.append({kind: ask[kind](prompt, given.new_tokens) for kind in kinds})
            kinds = kinds[1:] + kinds[:1]
    return rounds[1:]  # the first one warms


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="as `puna serve` takes it")
    parser.add_argument("--prompt-tokens", type=positive, default=8)
    parser.add_argument("--new-tokens", type=positive, default=32)
    parser.add_argument("--rounds", type=positive, default=31, help="(default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="of the engine; default: the CPUs")
    parser.add_argument("--vocabulary", type=positive, default=40_000, help="prompts have token ids below it")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def _without_http(llama: Llama, prompt: list[int], new_tokens: int) -> Times:
    events: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()
    request = Request(
        prompt=prompt,
        params=SamplingParams(temperature=0, max_tokens=new_tokens),
        stop_ids=llama.chat_format.stop_ids,
        sink=lambda event: events.put((time.perf_counter(), event)),
    )
    began = time.perf_counter()
    llama.engine.submit(request)
    times: list[float] = []
    tokens = 0
    while True:
        now, event = events.get()
        if event.error is not None:
            raise event.error
        tokens += len(event.tokens)
        if event.text:  # half a character waits for its rest, with and without HTTP
            times.append(now)
        if event.is_last:
            return _times(began, times, tokens)


def _through_http(
    connection: http.client.HTTPConnection, server: Served, prompt: list[int], new_tokens: int
) -> Times:
    body = completion_body(server, prompt, new_tokens)
    text = json.dumps(body)
    connection.close()  # it may have been idle for too long
    connection.connect()
    time.sleep(_ACCEPT_S)
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", text, {"content-type": "application/json"})
    response = connection.getresponse()
    times: list[float] = []
    tokens = 0
    for line in response:
        if line.startswith(b"data: {"):
            now = time.perf_counter()
            chunk = json.loads(line.removeprefix(b"data: "))
            if chunk["choices"] and chunk["choices"][0]["text"]:
                times.append(now)
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    if response.status != 200:
        raise RuntimeError(f"the server answered {response.status}")
    return _times(began, times, tokens)


def _times(began: float, times: Sequence[float], tokens: int) -> Times:
    return Times(1000 * (times[0] - began), 1000 * (times[-1] - times[0]) / max(1, tokens - 1))


if __name__ == "__main__":
    sys.exit(main())
