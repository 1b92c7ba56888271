"""`puna serve` and llama.cpp's servers in one run: bursts of streamed completions, all servers in turn.

    python -m benchmarks.servers MODEL GGUF --llama-server PATH --json servers.json

llama.cpp has two: its own program, and that of llama-cpp-python, which answers one request after the other.
Every request has random numbers of its own as its prompt, so that nothing is shared, and is decoded greedily.
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
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.plain_client import stream, tokens_of
from benchmarks.served import Served, completion_body, free_port, serving

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
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.llama_server is None and given.llama_cpp_python is None:
        parser.error("--llama-server or --llama-cpp-python is needed, or both")
    most = max(given.requests)
    with ExitStack() as stack:
        servers = {"puna": stack.enter_context(serving(given.model, ["--max-running", str(most)]))}
        for name, command in _peers(given, most).items():
            servers[name] = stack.enter_context(_peer(command))
        bursts = _rounds(servers, given)
    print(_table(bursts, list(servers), given.requests))
    if given.json is not None:
        figures = {
            "machine": describe(),
            "prompt_numbers": given.prompt_numbers,
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
    parser.add_argument("--llama-server", metavar="PATH", help="llama.cpp's program")
    parser.add_argument(
        "--llama-cpp-python", metavar="PYTHON", help="of an environment with llama-cpp-python[server]"
    )
    parser.add_argument("--threads", type=positive, default=2, help="of llama.cpp (default: %(default)s)")
    parser.add_argument("--requests", type=positive, nargs="+", default=[1, 8, 32], help="of a burst")
    parser.add_argument("--prompt-numbers", type=positive, default=32, help="each two tokens of Llama 3")
    parser.add_argument("--new-tokens", type=positive, default=48)
    parser.add_argument("--rounds", type=positive, default=3, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def _peers(given: argparse.Namespace, slots: int) -> dict[str, list[str]]:
    """The commands of the servers to compare with, by name; all but the port."""
    context, threads = 8 * given.prompt_numbers + given.new_tokens, str(given.threads)
    peers = {}
    if given.llama_server is not None:
        # A slot for each request, and flash attention, which is faster here for many at once.
        peers["llama-server"] = [given.llama_server, "-m", str(given.gguf), "-t", threads]
        peers["llama-server"] += ["--parallel", str(slots), "-c", str(slots * context)]
        peers["llama-server"] += ["-fa", "on", "--no-webui"]
    if given.llama_cpp_python is not None:
        module = [given.llama_cpp_python, "-m", "llama_cpp.server", "--model", str(given.gguf)]
        # Otherwise a request that comes ends the one before it.
        options = ["--n_threads", threads, "--n_ctx", str(context), "--interrupt_requests", "False"]
        peers["llama-cpp-python"] = module + options
    return peers


@contextmanager
def _peer(command: list[str]) -> Iterator[Served]:
    port = free_port()
    command = [*command, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while not _is_ready(url):
                if process.poll() is not None:
                    raise RuntimeError(f"`{' '.join(command)}` ended with status {process.returncode}")
                time.sleep(0.2)
            model = httpx2.get(f"{url}/v1/models").json()["data"][0]["id"]
            yield Served(f"{url}/v1", model, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v1/models").status_code == 200  # 503 while it loads
    except httpx2.TransportError:
        return False


def _rounds(servers: dict[str, Served], given: argparse.Namespace) -> list[Burst]:
    choose = random.Random(given.seed)

    def prompts(requests: int) -> list[str]:
        return [
            " ".join(f"{n}" for n in choose.choices(range(100, 1000), k=given.prompt_numbers))
            for _ in range(requests)
        ]

    bursts = []
    for name, server in servers.items():
        _burst(name, server, prompts(1), 2)  # loads and warms
    for round in range(given.rounds):
        for requests in given.requests:
            asked = prompts(requests)
            for name in list(servers)[:: 1 if round % 2 == 0 else -1]:
                bursts.append(_burst(name, servers[name], asked, given.new_tokens))
                print(bursts[-1], file=sys.stderr)
    return bursts


def _burst(name: str, server: Served, prompts: Sequence[str], new_tokens: int) -> Burst:
    answers = stream(server, [completion_body(server, prompt, new_tokens) for prompt in prompts])
    whole_s = max(answer.pieces[-1][0] for answer in answers) - answers[0].asked_s
    tokens, firsts = 0, []
    for answer in answers:
        events = answer.events()
        firsts.append(events[0][0] - answer.asked_s)
        # llama-cpp-python's tells no tokens in a stream; what it ends before the limit is an error.
        tokens += new_tokens if _is_full_length(events) else tokens_of(events)
    return Burst(name, len(prompts), tokens / whole_s, statistics.median(firsts), max(firsts), tokens)


def _is_full_length(events: Sequence[tuple[float, dict[str, Any]]]) -> bool:
    return any(choice.get("finish_reason") == "length" for _, event in events for choice in event["choices"])


def _table(bursts: Sequence[Burst], servers: Sequence[str], requests: Sequence[int]) -> str:
    lines = ["| requests | server | tok/s | puna's over it | first token, s |", "|" + "---|" * 5]
    for n in requests:
        speeds = {}
        for name in servers:
            own = [burst for burst in bursts if burst.server == name and burst.requests == n]
            speeds[name] = statistics.median(burst.tokens_per_s for burst in own)
            first_s = statistics.median(burst.first_s for burst in own)
            ratio = speeds["puna"] / speeds[name]
            lines.append(f"| {n} | {name} | {speeds[name]:.1f} | {ratio:.2f}x | {first_s:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
