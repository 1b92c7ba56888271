"""What a model costs before and beside its speed: start, memory, file."""

from __future__ import annotations

import time

from benchmarks.measures.run import Run
from puna.evaluate.speed import checkpoint_bytes, peak_rss_bytes

_START_PROMPT = 16  # a short question: reading prompts has rows of its own
_PROMPT, _NEW = 64, 64


class ColdStart:
    """From the start of the process to the first token, interpreter and imports included.

    The file is in the page cache: the process that measures has read it.
    """

    name = "cold-start"
    title = "start to first token"
    unit = "s"
    more_is_better = False
    is_fresh = True
    context = _START_PROMPT + 48
    requests = 1

    def prepare(self, run: Run) -> None:
        pass

    def value(self, run: Run) -> float:
        run.engine.run(run.prompt(_START_PROMPT), 1)
        return time.monotonic() - run.started


class PeakMemory:
    """Most memory of the process over a prompt and its answer, mapped weights included."""

    name = "peak-memory"
    title = "peak memory"
    unit = "MB"
    more_is_better = False
    is_fresh = True
    context = _PROMPT + _NEW + 32
    requests = 1

    def prepare(self, run: Run) -> None:
        run.engine.run(run.prompt(_PROMPT), _NEW)

    def value(self, run: Run) -> float:
        return peak_rss_bytes() / 1e6


class FileSize:
    """Bytes of the model file, or of all files of the folder."""

    name = "file-size"
    title = "file size"
    unit = "MB"
    more_is_better = False
    is_fresh = False
    context = 64
    requests = 1

    def prepare(self, run: Run) -> None:
        pass

    def value(self, run: Run) -> float:
        return checkpoint_bytes(run.path) / 1e6
