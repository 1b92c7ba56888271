"""Puna, through its Python API."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import puna
from benchmarks.engines import Settings, Times

_CONTEXTS = 4  # the cache of a loaded model has room for so many, see puna.engine.native


class Puna:
    def __init__(self, path: Path, settings: Settings) -> None:
        contexts = -(-settings.requests // _CONTEXTS)
        options: dict[str, Any] = {"threads": settings.threads, "context": settings.context * contexts}
        # No guesses: random weights repeat themselves, which no text does. Older commits have none.
        if "speculation" in inspect.signature(puna.load).parameters:
            options["speculation"] = "off"
        self._llama = puna.load(str(path), **options)

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        usage = self._llama.generate(prompt, max_tokens=n_new, temperature=0.0, ignore_eos=True).usage
        return Times(usage.time_to_first_token_s, usage.decode_s, usage.cached_tokens)

    def run_together(self, prompts: Sequence[Sequence[int]], n_new: int) -> None:
        streams = [self._llama.stream(p, max_tokens=n_new, temperature=0.0, ignore_eos=True) for p in prompts]
        for stream in streams:
            stream.result()

    def facts(self) -> dict[str, float]:
        info = self._llama.info
        if not hasattr(info, "weight_bytes_per_token"):  # an older commit
            return {}
        return {"weight_bytes": info.weight_bytes_per_token, "cache_bytes": info.cache_bytes_per_token}


def load(path: Path, settings: Settings) -> Puna:
    return Puna(path, settings)
