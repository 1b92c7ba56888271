"""What is measured: each engine behind one small class, imported only where it runs.

An engine is loaded from a file, takes a prompt of token ids, and then gives greedy tokens one by one.
Nothing may carry over from one prompt to the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Times:
    """Seconds of one prompt and its answer."""

    prefill_s: float
    decode_s: float  # of all tokens but the first


class Engine(Protocol):
    """A loaded model."""

    def run(self, prompt: Sequence[int], n_new: int) -> Times: ...


class Puna:
    """Puna on a folder of packed weights."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        import puna

        self._llama = puna.load(str(path), threads=threads, context=context, speculation="off")

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        stream = self._llama.stream(prompt, max_tokens=n_new, temperature=0.0, ignore_eos=True)
        usage = stream.result().usage
        assert usage.cached_tokens == 0, "every prompt must be new to the cache"
        return Times(usage.time_to_first_token_s, usage.decode_s)


class LlamaCpp:
    """llama.cpp through llama-cpp-python, its low-level calls."""

    def __init__(self, path: Path, context: int, threads: int, flash_attention: bool = False) -> None:
        import llama_cpp

        self._llama = llama_cpp.Llama(
            str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads, n_batch=512, n_ubatch=512,
            flash_attn=flash_attention, verbose=False,
        )  # fmt: skip

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        llama = self._llama
        llama.reset()
        begin = time.perf_counter()
        llama.eval(list(prompt))
        token = llama.sample(temp=0.0, repeat_penalty=1.0)
        first = time.perf_counter()
        for _ in range(n_new - 1):
            llama.eval([token])
            token = llama.sample(temp=0.0, repeat_penalty=1.0)
        return Times(first - begin, time.perf_counter() - first)


def load(name: str, path: Path, context: int, threads: int) -> Engine:
    """Load an engine by name: ``puna``, ``llama.cpp`` or ``llama.cpp flash``."""
    if name == "puna":
        return Puna(path, context, threads)
    return LlamaCpp(path, context, threads, flash_attention=name.endswith("flash"))


def version_of(name: str) -> str:
    """Version of the package that runs an engine."""
    module = import_module("puna" if name == "puna" else "llama_cpp")
    return str(module.__version__)
