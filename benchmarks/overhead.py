"""What the server adds to the engine: the same request through HTTP and without it, in turn.

The third is a bare HTTP server, which does nothing but hand a request on to the engine: what it adds, every
server in Python does.

    python -m benchmarks.overhead smollm2-135m-instruct

One request at a time, decoded greedily and streamed.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.plain_client import stream, tokens_of
from benchmarks.served import PUNA, Served, completion_body, free_port, random_prompt, serving
from puna.engine.request import Event, Request, SamplingParams
from puna.llama import Llama, load

__all__ = ["main"]


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
            ask[kind] = partial(_through_http, served)
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


def _through_http(server: Served, prompt: list[int], new_tokens: int) -> Times:
    (answer,) = stream(server, [completion_body(server, prompt, new_tokens)])
    events = answer.events()
    times = [now for now, event in events if event["choices"] and event["choices"][0]["text"]]
    return _times(answer.asked_s, times, tokens_of(events))


def _times(began: float, times: Sequence[float], tokens: int) -> Times:
    return Times(1000 * (times[0] - began), 1000 * (times[-1] - times[0]) / max(1, tokens - 1))


if __name__ == "__main__":
    sys.exit(main())
