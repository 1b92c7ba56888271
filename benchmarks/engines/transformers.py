"""transformers on PyTorch, eager, as its users run it on a CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.engines import Settings, Times


class Transformers:
    def __init__(self, path: Path, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        begin = time.perf_counter()
        cache = DynamicCache(config=self._model.config)
        tokens = self._step(torch.tensor([list(prompt)]), cache)
        first = time.perf_counter()
        for _ in range(n_new - 1):
            tokens = self._step(tokens, cache)
        return Times(first - begin, time.perf_counter() - first)

    @torch.inference_mode()
    def run_together(self, prompts: Sequence[Sequence[int]], n_new: int) -> None:
        cache = DynamicCache(config=self._model.config)
        tokens = self._step(torch.tensor([list(prompt) for prompt in prompts]), cache)
        for _ in range(n_new - 1):
            tokens = self._step(tokens, cache)

    def facts(self) -> dict[str, float]:
        return {}

    def _step(self, tokens: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """One forward of ``[requests, tokens]``; the next token of each, ``[requests, 1]``."""
        logits = self._model(tokens, cache=cache, logits_to_keep=1).logits
        return logits[:, -1].argmax(dim=-1, keepdim=True)


def load(path: Path, settings: Settings) -> Transformers:
    return Transformers(path, settings)
