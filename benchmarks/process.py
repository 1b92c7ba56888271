"""An engine's process, seen from the one that compares."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.engines import ENGINES, Unsupported

__all__ = ["Failed", "Job", "Process"]


class Failed(Exception):
    """The process ended without an answer."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is started for; see `benchmarks.worker`."""

    engine: str
    path: str
    measure: str
    threads: int
    seed: int


class Process:
    """A process that has prepared a measure and gives one value a time.

    A value that does not come in time ends the process.
    """

    def __init__(self, job: Job, timeout_s: float, python: Path = Path(sys.executable)) -> None:
        """Start and prepare.

        Args:
            job: what to measure.
            timeout_s: for a value, or for getting ready.
            python: the interpreter, which decides which packages are measured.

        Raises:
            Failed: it ended or took too long.
            Unsupported: the engine has no such thing.
        """
        self._timeout_s = timeout_s
        # As long as the process lives, and read only if it dies.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        message = asdict(job) | {"options": dict(ENGINES[job.engine].options), "started": time.monotonic()}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", json.dumps(message)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        try:
            self._answer("ready")
        except BaseException:
            self._end()
            raise

    def value(self) -> float:
        """Measure once.

        Raises:
            Failed: the process ended or took too long.
            Unsupported: the engine has no such thing.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead; why, `_answer` says
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return float(self._answer("value"))

    def facts(self) -> dict[str, float]:
        """End the process; what the engine says of itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        facts: dict[str, float] = self._answer("facts")
        self._process.wait(self._timeout_s)
        return facts

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None and not stream.closed:
                stream.close()

    def _answer(self, key: str) -> Any:
        assert self._process.stdout is not None
        timer = threading.Timer(self._timeout_s, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        is_late = not timer.is_alive()
        timer.cancel()
        if not line:
            raise Failed(f"took over {self._timeout_s:.0f} s" if is_late else self._last_words())
        message = json.loads(line)
        if "unsupported" in message:
            raise Unsupported(message["unsupported"])
        return message[key]

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} (status {status})"
