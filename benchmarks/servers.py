"""`puna serve` and llama.cpp's server in one run: bursts of streamed completions, the two in turn.

    python -m benchmarks.servers MODEL GGUF --llama-server PATH --json servers.json

Every request has random tokens of its own as its prompt, so that nothing is shared, and is decoded greedily.
The speed counts the new tokens of a burst over the time of the whole burst.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx2

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.plain_client import stream, tokens_of
from benchmarks.served import Served, completion_body, free_port, random_prompt, serving

__all__ = ["main"]


@dataclass(slots=True)
class Burst:
    """What came of requests that were sent at once.

    Attributes:
        server: who answered.
        requests: how many.
        tokens_per_s: new tokens of all over the time of all.
        first_s: the median time to a request's first piece of text.
        slowest_first_s: the longest of these.
        tokens: new ones of all.
    """

    server: str
    requests: int
    tokens_per_s: float
    first_s: float
    slowest_first_s: float
    tokens: int


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    most = max(given.requests)
    with _llama_server(given, most) as theirs, serving(given.model, ["--max-running", str(most)]) as ours:
        bursts = _rounds({"puna": ours, "llama.cpp": theirs}, given)
    print(_table(bursts, given.requests))
    if given.json is not None:
        figures = {
            "machine": describe(),
            "prompt_tokens": given.prompt_tokens,
            "new_tokens": given.new_tokens,
            "bursts": [asdict(burst) for burst in bursts],
        }
        given.json.write_text(json.dumps(figures, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.servers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="as `puna serve` takes it")
    parser.add_argument("gguf", type=Path, help="the same model for llama.cpp")
    parser.add_argument("--llama-server", required=True, metavar="PATH", help="llama.cpp's program")
    parser.add_argument("--threads", type=positive, default=2, help="of llama.cpp (default: %(default)s)")
    parser.add_argument("--requests", type=positive, nargs="+", default=[1, 8, 32], help="of a burst")
    parser.add_argument("--prompt-tokens", type=positive, default=64)
    parser.add_argument("--new-tokens", type=positive, default=48)
    parser.add_argument("--rounds", type=positive, default=3, help="(default: %(default)s)")
    parser.add_argument("--vocabulary", type=positive, default=40_000, help="prompts have token ids below it")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


@contextmanager
def _llama_server(given: argparse.Namespace, slots: int) -> Iterator[Served]:
    port = free_port()
    # A slot for each request, and flash attention, which is faster here for many at once.
    context = slots * (given.prompt_tokens + given.new_tokens + 16)
    command = [given.llama_server, "-m", str(given.gguf), "--port", str(port), "-t", str(given.threads)]
    command += ["--parallel", str(slots), "-c", str(context), "-fa", "on", "--no-webui"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while not _is_healthy(url):
                if process.poll() is not None:
                    raise RuntimeError(f"`{' '.join(command)}` ended with status {process.returncode}")
                time.sleep(0.2)
            model = httpx2.get(f"{url}/v1/models").json()["data"][0]["id"]
            yield Served(f"{url}/v1", model, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v1/health").status_code == 200
    except httpx2.TransportError:
        return False


def _rounds(servers: dict[str, Served], given: argparse.Namespace) -> list[Burst]:
    prompt = partial(random_prompt, random.Random(given.seed), given.prompt_tokens, given.vocabulary)
    bursts = []
    for name, server in servers.items():
        _burst(name, server, [prompt()], 2)  # loads and warms
    for round in range(given.rounds):
        for requests in given.requests:
            prompts = [prompt() for _ in range(requests)]
            for name in list(servers)[:: 1 if round % 2 == 0 else -1]:
                bursts.append(_burst(name, servers[name], prompts, given.new_tokens))
                print(bursts[-1], file=sys.stderr)
    return bursts


def _burst(name: str, server: Served, prompts: Sequence[list[int]], new_tokens: int) -> Burst:
    answers = stream(server, [completion_body(server, prompt, new_tokens) for prompt in prompts])
    whole_s = max(answer.pieces[-1][0] for answer in answers) - answers[0].asked_s
    tokens, firsts = 0, []
    for answer in answers:
        events = answer.events()
        firsts.append(events[0][0] - answer.asked_s)
        tokens += tokens_of(events)
    return Burst(name, len(prompts), tokens / whole_s, statistics.median(firsts), max(firsts), tokens)


def _table(bursts: Sequence[Burst], requests: Sequence[int]) -> str:
    lines = ["| requests | puna, tok/s | llama.cpp, tok/s | ratio | first token, s | llama.cpp's, s |"]
    lines.append("|" + "---|" * 6)
    for n in requests:
        medians = [
            statistics.median(getattr(b, figure) for b in bursts if b.server == name and b.requests == n)
            for figure in ("tokens_per_s", "first_s")
            for name in ("puna", "llama.cpp")
        ]
        cells = [f"{n}", *(f"{m:.1f}" for m in medians[:2]), f"{medians[0] / medians[1]:.2f}x"]
        lines.append("| " + " | ".join([*cells, *(f"{m:.2f}" for m in medians[2:])]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
