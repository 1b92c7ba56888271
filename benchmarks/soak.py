"""A server under many clients that come, go and hang up, and then under more than it can take.

    python -m benchmarks.soak smollm2-135m-instruct --clients 64 --seconds 300 --json soak.json

For a while every client asks one question after the other, each with a word of its own in it; a third hang
up in the middle. Then it is asked by ten times as many as it lets run and wait, each with a key of its own;
who is refused comes again when told to. The command ends with status 1 where a rule is broken:

* an answer holds no other request's word,
* every accepted request that the client did not leave comes to its end,
* nothing stays behind: no answer runs or waits, and no cache position is set aside,
* the server's memory is flat: in the last third of a minute or more it is at most 2 % over the second's,
* whoever is refused is told so with 429.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.served import Answer, Served, ask, serving
from puna.server.door.keys import hashed, key_line, new_key

__all__ = ["main"]

_WORD = re.compile(r"zq[a-z]{10}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_OVERLOAD = 10
_GROWTH = 1.02
_WARM_S = 60
_CONTEXT = 1024  # so little that the cache of earlier prompts is soon full, and memory must stay flat


@dataclass(slots=True)
class Soak:
    """What was seen.

    Attributes:
        answers: how many came to their end.
        left: how many the client left.
        words: the words of all requests so far.
        problems: broken rules, in words.
        resident: the server's memory, bytes, over time.
    """

    answers: int = 0
    left: int = 0
    words: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)

    with serving(given.model, ["--context", str(_CONTEXT)]) as server:
        soak = asyncio.run(_soak(server, given))
        soak.problems += _left_behind(server)
    if given.seconds >= _WARM_S:
        soak.problems += _growth(soak.resident)
    print(
        f"{soak.answers} answers, {soak.left} that the client left; memory {soak.resident[0] / 1e6:.0f} to "
        f"{max(soak.resident) / 1e6:.0f} MB"
    )
    keys = [new_key() for _ in range(_OVERLOAD * (given.running + given.waiting))]
    if given.one_key:
        keys = [keys[0]] * len(keys)
    limits = ["--max-running", str(given.running), "--max-waiting", str(given.waiting)]
    limits += ["--max-wait", str(given.max_wait)]
    with _key_file(keys) as path, serving(given.model, [*limits, "--keys", path]) as server:
        overload = asyncio.run(_overload(server, keys, given))
        problems = soak.problems + overload.pop("problems") + _left_behind(server, keys[0])
    print(", ".join(f"{name} {value}" for name, value in overload.items()))
    for problem in problems:
        print(f"broken: {problem}", file=sys.stderr)
    if given.json is not None:
        figures = {
            "machine": describe(), "answers": soak.answers, "left": soak.left,
            "resident_bytes": soak.resident, "overload": overload, "problems": problems,
        }  # fmt: skip
        given.json.write_text(json.dumps(figures, indent=1))
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="as `puna serve` takes it")
    parser.add_argument("--clients", type=positive, default=64, help="at once (default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=300, help="of the soak (default: %(default)s)")
    parser.add_argument("--running", type=positive, default=8, help="answers at once, overload")
    parser.add_argument("--waiting", type=positive, default=16, help="answers that may wait, overload")
    parser.add_argument(
        "--max-wait", type=float, default=30, help="as `puna serve` takes it, overload (default: %(default)s)"
    )
    parser.add_argument(
        "--overload-seconds", type=positive, default=120, help="of the overload (default: %(default)s)"
    )
    parser.add_argument("--one-key", action="store_true", help="for all clients of the overload")
    parser.add_argument("--max-tokens", type=positive, default=48, help="of an answer (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of words and of who hangs up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


async def _soak(server: Served, given: argparse.Namespace) -> Soak:
    soak = Soak()
    async with _client(given.clients) as client:
        end_s = time.monotonic() + given.seconds

        async def run(number: int) -> None:
            choose = random.Random(f"{given.seed} {number}")
            while time.monotonic() < end_s:
                word = "zq" + "".join(choose.choices(_LETTERS, k=10))
                soak.words.add(word)
                leave_after = choose.randint(1, 20) if choose.random() < 1 / 3 else None
                prompt = f"Say the word {word} as often as you like."
                answer = await ask(client, server, prompt, given.max_tokens, leave_after)
                soak.problems += _wrong(answer, word, soak.words, leave_after)
                soak.answers += answer.is_ended
                soak.left += not answer.is_ended

        async def watch() -> None:
            while time.monotonic() < end_s:
                soak.resident.append(server.resident_bytes())
                await asyncio.sleep(given.seconds / 60)

        await asyncio.gather(watch(), *(run(number) for number in range(given.clients)))
    return soak


async def _overload(server: Served, keys: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """First one client, then as many as may run, then ten times as many as may run and wait."""

    async def asked(clients: int, seconds: float) -> list[Answer]:
        answers: list[Answer] = []
        async with _client(clients) as client:

            async def run(number: int) -> None:
                choose, end_s = random.Random(f"{given.seed} {number}"), time.monotonic() + seconds
                while time.monotonic() < end_s:
                    prompt = f"Client {number} asks question {len(answers)}: why?"
                    answer = await ask(client, server, prompt, given.max_tokens, key=keys[number])
                    answers.append(answer)
                    # As clients do, not all in the same moment.
                    wait_s = answer.retry_after_s * choose.uniform(1, 1.5)
                    await asyncio.sleep(min(wait_s, max(0, end_s - time.monotonic())))

            await asyncio.gather(*map(run, range(clients)))
        return answers

    alone = await asked(1, given.overload_seconds / 6)
    usual = await asked(given.running, given.overload_seconds / 3)
    begun_s = time.perf_counter()
    busy = await asked(len(keys), given.overload_seconds)
    # Who came before the first refusal may have waited for as long as allowed.
    begin_s = min(given.max_wait, given.overload_seconds / 2)
    later = [answer for answer in busy if answer.asked_s - begun_s >= begin_s]
    refused = [answer for answer in busy if answer.status != 200]
    return {
        "accepted": len(busy) - len(refused),
        "refused": len(refused),
        "slowest refusal, ms": round(1000 * max((a.whole_s for a in refused), default=0), 1),
        "p95 of a refusal, ms": _p95_ms(a.whole_s for a in refused),
        "p95 to the first token of one client, ms": _p95_ms(a.first_s for a in alone),
        "p95 to the first token at full use, ms": _p95_ms(a.first_s for a in usual),
        "p95 to the first token in overload, ms": _p95_ms(a.first_s for a in busy),
        "the same without its begin, ms": _p95_ms(a.first_s for a in later),
        "problems": [f"refused with {a.status}" for a in refused if a.status != 429]
        + [f"cut: {a.text!r}" for a in busy if a.status == 200 and not a.is_ended]
        + ([] if refused else ["nobody was refused"]),
    }


@contextmanager
def _key_file(keys: Sequence[str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        names = {key: str(number) for number, key in enumerate(keys)}
        file.writelines(f"{key_line(hashed(name, key))}\n" for key, name in names.items())
        file.flush()
        yield file.name


def _client(connections: int) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=600, limits=httpx2.Limits(max_connections=connections))


def _p95_ms(times_s: Iterable[float | None]) -> float:
    """The 95th percentile of those that are known."""
    known = sorted(time_s for time_s in times_s if time_s is not None)
    return round(1000 * known[math.ceil(0.95 * len(known)) - 1], 1) if known else math.nan


def _wrong(answer: Answer, word: str, words: Set[str], leave_after: int | None) -> list[str]:
    if answer.status != 200:
        return [f"status {answer.status} where there was room"]
    problems = []
    if not answer.is_ended and leave_after is None:
        problems.append(f"the answer about {word} was cut: {answer.text!r}")
    return problems + [
        f"{other} in the answer about {word}" for other in _strangers(answer.text, word, words)
    ]


def _strangers(text: str, word: str, words: Set[str]) -> list[str]:
    """Words of other requests; a small model also misspells its own, and invents some."""
    return [other for other in _WORD.findall(text) if other != word and other in words]


def _left_behind(server: Served, key: str = "none") -> list[str]:
    names = ("running", "waiting", "cache_tokens_reserved")
    for _ in range(100):
        figures = server.figures(key)
        if not any(figures[name] for name in names):
            return []
        time.sleep(0.1)
    return [f"{figures[name]:g} {name} when all was over" for name in names if figures[name]]


def _growth(resident: Sequence[int]) -> list[str]:
    third = len(resident) // 3
    middle, last = statistics.median(resident[third : 2 * third]), statistics.median(resident[2 * third :])
    if last <= _GROWTH * middle:
        return []
    return [f"memory grew from {middle / 1e6:.0f} MB to {last / 1e6:.0f} MB"]


if __name__ == "__main__":
    sys.exit(main())
