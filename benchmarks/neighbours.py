"""How long an answer waits while a long prompt is read beside it, and how long that prompt takes.

    python -m benchmarks.neighbours smollm2-135m-instruct

Two engines of the same model in turn: one whose steps have fewer tokens deep in a text, as Puna's have, and
one with as many everywhere.
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

from benchmarks.machine import describe
from benchmarks.options import positive
from benchmarks.served import random_prompt
from puna.engine.pace import Pace
from puna.engine.request import Event, Request, SamplingParams
from puna.llama import Llama, load

__all__ = ["main"]

_ANSWER_TOKENS = 8  # before the prompt comes


@dataclass(frozen=True, slots=True)
class Times:
    """Of one prompt.

    Attributes:
        alone_s: from the prompt to its first token, while nothing else runs.
        beside_s: the same beside an answer.
        longest_gap_s: between two tokens of that answer meanwhile.
    """

    alone_s: float
    beside_s: float
    longest_gap_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    rounds = _measured(given)
    for name in ("alone_s", "beside_s", "longest_gap_s"):
        ours, even = ([getattr(times[kind], name) for times in rounds] for kind in ("fewer", "even"))
        ratio = statistics.median(a / b for a, b in zip(ours, even, strict=True))
        print(
            f"{name.removesuffix('_s')}: {statistics.median(ours):.3f} s, with even steps "
            f"{statistics.median(even):.3f} s, ratio {ratio:.2f}"
        )
    if given.json is not None:
        figures = [{kind: asdict(each) for kind, each in times.items()} for times in rounds]
        given.json.write_text(json.dumps({"machine": describe(), "rounds": figures}, indent=1))
    return 0


def _measured(given: argparse.Namespace) -> list[dict[str, Times]]:
    choose = random.Random(given.seed)
    rounds: list[dict[str, Times]] = []
    with ExitStack() as stack:
        llamas = {"fewer": stack.enter_context(load(given.model, threads=given.threads))}
        with patch("puna.engine.native.pace_of", lambda _: Pace(math.inf)):
            llamas["even"] = stack.enter_context(load(given.model, threads=given.threads))
        kinds = list(llamas)
        for _ in range(given.rounds):
            # New ones each time: of a known one the engine would have the beginning in its cache.
            alone, beside, answered = (
                random_prompt(choose, n, given.vocabulary)
                for n in (given.prompt_tokens, given.prompt_tokens, _ANSWER_TOKENS)
            )
            rounds.append({kind: _times(llamas[kind], alone, beside, answered) for kind in kinds})
            kinds.reverse()
    return rounds


def _times(llama: Llama, alone: list[int], beside: list[int], answered: list[int]) -> Times:
    alone_s = _first_s(llama, alone)
    request, tokens = _submit(llama, answered, llama.engine.context_tokens - len(answered))
    for _ in range(_ANSWER_TOKENS):
        tokens.get()
    began = time.perf_counter()
    beside_s = _first_s(llama, beside)
    llama.engine.cancel(request)
    came = [began, *(at for at in iter(tokens.get, None) if at is not None and at > began)]
    gaps = [b - a for a, b in pairwise(came) if a < began + beside_s]
    return Times(alone_s, beside_s, max(gaps))


def _first_s(llama: Llama, prompt: list[int]) -> float:
    began = time.perf_counter()
    return float((_submit(llama, prompt, 1)[1].get() or math.nan) - began)


def _submit(
    llama: Llama, prompt: list[int], max_tokens: int
) -> tuple[Request, queue.SimpleQueue[float | None]]:
    """A request, and when its tokens came; None behind the last one."""
    times: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def note(event: Event) -> None:
        if event.tokens:
            times.put(time.perf_counter())
        if event.is_last:
            times.put(None)

    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    request = Request(prompt=prompt, params=params, stop_ids=frozenset(), sink=note)
    llama.engine.submit(request)
    return request, times


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.neighbours",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="as `puna chat` takes it")
    parser.add_argument("--prompt-tokens", type=positive, default=7900, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="of the engines; default: the CPUs")
    parser.add_argument("--vocabulary", type=positive, default=40_000, help="prompts have token ids below it")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
