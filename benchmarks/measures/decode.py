"""How fast an answer comes after a prompt of some length."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.measures.run import Run

_NEW = 33


@dataclass
class Decode:
    """Tokens a second after the first. The prompt stays, so an engine may keep what it knows of it."""

    n_prompt: int
    unit = "tok/s"
    more_is_better = True
    is_fresh = False
    requests = 1

    def __post_init__(self) -> None:
        self.name = f"decode-{self.n_prompt}"
        self.title = f"answer after {self.n_prompt:,} tokens"
        self.context = self.n_prompt + _NEW + 31

    def prepare(self, run: Run) -> None:
        self._prompt = run.prompt(self.n_prompt)
        run.engine.run(self._prompt, 2)

    def value(self, run: Run) -> float:
        return (_NEW - 1) / run.engine.run(self._prompt, _NEW).decode_s
