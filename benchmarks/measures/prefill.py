"""How fast a prompt is read."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.measures.run import Run


@dataclass
class Prefill:
    """Prompt tokens over the time to the first token, as in the Llama 3.2 model card."""

    n_prompt: int
    unit = "tok/s"
    more_is_better = True
    is_fresh = False
    requests = 1

    def __post_init__(self) -> None:
        self.name = f"prefill-{self.n_prompt}"
        self.title = f"prompt of {self.n_prompt:,} tokens"
        self.context = self.n_prompt + 32

    def prepare(self, run: Run) -> None:
        run.engine.run(run.prompt(self.n_prompt), 1)

    def value(self, run: Run) -> float:
        times = run.engine.run(run.prompt(self.n_prompt), 1)
        if times.cached_tokens:
            raise RuntimeError(f"{times.cached_tokens} tokens of a new prompt were known before")
        return self.n_prompt / times.prefill_s
