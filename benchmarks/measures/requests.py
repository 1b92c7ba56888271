"""How fast many requests are answered that come at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.measures.run import Run

_PROMPT, _NEW = 64, 48


@dataclass
class Requests:
    """New tokens of all requests over the time until the last is done, prompts included."""

    requests: int
    unit = "tok/s"
    more_is_better = True
    is_fresh = False
    context = _PROMPT + _NEW + 16

    def __post_init__(self) -> None:
        self.name = f"requests-{self.requests}"
        self.title = f"{self.requests} requests at once"

    def prepare(self, run: Run) -> None:
        run.engine.run_together([run.prompt(_PROMPT) for _ in range(self.requests)], 2)

    def value(self, run: Run) -> float:
        prompts = [run.prompt(_PROMPT) for _ in range(self.requests)]
        engine, begin = run.engine, time.perf_counter()
        engine.run_together(prompts, _NEW)
        return self.requests * _NEW / (time.perf_counter() - begin)
