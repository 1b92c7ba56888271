"""llama.cpp through the low-level calls of llama-cpp-python, as its own llama-bench uses them.

Many requests are the sequences of one batch, the way its server computes them, without the server's own
cost. Greedy sampling is llama.cpp's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as api

from benchmarks.engines import Settings, Times

_BATCH_TOKENS = 2048  # llama-bench's own sizes
_UBATCH_TOKENS = 512


class LlamaCpp:
    def __init__(self, path: Path, settings: Settings) -> None:
        api.llama_log_set(_silence, None)
        api.llama_backend_init()
        self._model = api.llama_model_load_from_file(os.fsencode(path), api.llama_model_default_params())
        if not self._model:
            raise ValueError(f"llama.cpp cannot read {path}")
        params = api.llama_context_default_params()
        params.n_ctx = settings.context * settings.requests
        params.n_seq_max = settings.requests
        params.n_batch, params.n_ubatch = _BATCH_TOKENS, _UBATCH_TOKENS
        params.n_threads = params.n_threads_batch = settings.threads
        is_flash = bool(settings.options.get("flash_attention"))
        params.flash_attn_type = (
            api.LLAMA_FLASH_ATTN_TYPE_ENABLED if is_flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            raise ValueError(f"llama.cpp has no room for {params.n_ctx} positions")
        self._memory = api.llama_get_memory(self._context)
        self._sampler = api.llama_sampler_init_greedy()
        self._batch = api.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._known: list[int] = []  # tokens of sequence 0 whose keys and values are kept

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        begin = time.perf_counter()
        cached = _common_length(self._known, prompt[:-1])
        api.llama_memory_seq_rm(self._memory, -1 if cached == 0 else 0, cached, -1)
        for start in range(cached, len(prompt), _BATCH_TOKENS):
            part = prompt[start : start + _BATCH_TOKENS]
            self._decode([(token, start + i, 0) for i, token in enumerate(part)], {len(part) - 1})
        token = api.llama_sampler_sample(self._sampler, self._context, -1)
        first = time.perf_counter()
        for i in range(n_new - 1):
            self._decode([(token, len(prompt) + i, 0)], {0})
            token = api.llama_sampler_sample(self._sampler, self._context, -1)
        self._known = list(prompt)
        return Times(first - begin, time.perf_counter() - first, cached)

    def run_together(self, prompts: Sequence[Sequence[int]], n_new: int) -> None:
        api.llama_memory_clear(self._memory, True)
        self._known = []
        tokens: list[int] = []
        # Whole prompts, as many as a batch holds.
        at_once = max(1, _BATCH_TOKENS // len(prompts[0]))
        for start in range(0, len(prompts), at_once):
            entries, outputs = [], []
            for sequence, prompt in list(enumerate(prompts))[start : start + at_once]:
                entries += [(token, i, sequence) for i, token in enumerate(prompt)]
                outputs.append(len(entries) - 1)
            self._decode(entries, set(outputs))
            tokens += [api.llama_sampler_sample(self._sampler, self._context, i) for i in outputs]
        for step in range(n_new - 1):
            entries = [(t, len(prompts[s]) + step, s) for s, t in enumerate(tokens)]
            self._decode(entries, set(range(len(entries))))
            tokens = [api.llama_sampler_sample(self._sampler, self._context, s) for s in range(len(tokens))]

    def facts(self) -> dict[str, float]:
        return {}

    def _decode(self, entries: Sequence[tuple[int, int, int]], outputs: set[int]) -> None:
        """One forward of (token, position, sequence), with logits at the outputs."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence) in enumerate(entries):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = i in outputs
        status = api.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")


def load(path: Path, settings: Settings) -> LlamaCpp:
    return LlamaCpp(path, settings)


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


@api.llama_log_callback
def _silence(level: int, text: bytes, data: object) -> None:
    pass
