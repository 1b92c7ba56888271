"""OpenVINO GenAI's pipeline, reading the GGUF file, with its own defaults but for the threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino_genai as genai
from openvino import Tensor

from benchmarks.engines import Settings, Times


class _Clock(genai.StreamerBase):  # type: ignore[misc]
    """Notes when the first and the last token came."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.last = 0.0
        self.n_tokens = 0

    def write(self, tokens: int | Sequence[int]) -> genai.StreamingStatus:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.n_tokens += 1 if isinstance(tokens, int) else len(tokens)
        return genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


class OpenVino:
    def __init__(self, path: Path, settings: Settings) -> None:
        properties = {"INFERENCE_NUM_THREADS": settings.threads}
        if settings.requests > 1:
            scheduler = genai.SchedulerConfig()
            scheduler.max_num_seqs = settings.requests
            scheduler.enable_prefix_caching = False
            self._pipeline = genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
        else:
            self._pipeline = genai.LLMPipeline(str(path), "CPU", **properties)

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        clock = _Clock()
        begin = time.perf_counter()
        self._pipeline.generate(Tensor(np.array([prompt], np.int64)), _greedy(n_new), clock)
        if clock.n_tokens != n_new:
            raise RuntimeError(f"{clock.n_tokens} tokens came where {n_new} were asked for")
        return Times(clock.first - begin, clock.last - clock.first)

    def run_together(self, prompts: Sequence[Sequence[int]], n_new: int) -> None:
        tensors = [Tensor(np.array([prompt], np.int64)) for prompt in prompts]
        self._pipeline.generate(tensors, [_greedy(n_new)] * len(prompts))

    def facts(self) -> dict[str, float]:
        return {}


def load(path: Path, settings: Settings) -> OpenVino:
    return OpenVino(path, settings)


def _greedy(n_new: int) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = n_new, True, False
    return config
