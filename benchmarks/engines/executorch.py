"""An ExecuTorch program's own forward, with its cache inside, called as ExecuTorch's runners call it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import executorch.extension.llm.custom_ops.custom_ops
import executorch.kernels.quantized  # noqa: F401 - the embedding
import torch
from executorch.extension.pybindings.portable_lib import (
    _load_for_executorch,
    _unsafe_reset_threadpool,
)

from benchmarks.engines import Settings, Times, Unsupported


class ExecuTorch:
    def __init__(self, path: Path, settings: Settings) -> None:
        _unsafe_reset_threadpool(settings.threads)
        self._program = _load_for_executorch(str(path))
        room = int(self._program.run_method("get_max_context_len", ())[0])
        if settings.requests > 1:
            raise Unsupported("a program answers one request at a time")
        if settings.context > room:
            raise Unsupported(
                f"the program was exported with {room} positions, {settings.context} are needed"
            )

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        begin = time.perf_counter()
        token = self._step(prompt, 0)
        first = time.perf_counter()
        for i in range(n_new - 1):
            token = self._step([token], len(prompt) + i)
        return Times(first - begin, time.perf_counter() - first)

    def run_together(self, prompts: Sequence[Sequence[int]], n_new: int) -> None:
        raise Unsupported("a program answers one request at a time")

    def facts(self) -> dict[str, float]:
        return {}

    def _step(self, tokens: Sequence[int], position: int) -> int:
        inputs = (torch.tensor([list(tokens)]), torch.tensor([position]))
        logits = self._program.run_method("forward", inputs)[0]
        return int(logits.flatten()[-logits.shape[-1] :].argmax())


def load(path: Path, settings: Settings) -> ExecuTorch:
    return ExecuTorch(path, settings)
