from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puna.engine.request import Usage
from puna.errors import CapacityError, CheckpointError, ConfigError, EngineError, UnknownModelError
from puna.evaluate import speed
from puna.evaluate.machine import this_machine
from puna.evaluate.speed import (
    SpeedSettings,
    Spread,
    checkpoint_bytes,
    measure,
    measure_apart,
    peak_rss_bytes,
)


@dataclass
class TimedLlama:
    """A model whose runs take given times."""

    runs: list[tuple[float, float]]
    prompts: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.info = SimpleNamespace(name="timed")
        self.engine = SimpleNamespace(context_tokens=100)
        self.config = SimpleNamespace(vocab_size=40)
        self.tokenizer = SimpleNamespace(special_tokens={"<a>": 0, "<b>": 7}, left_out=lambda n: [3, n - 1])

    def generate(self, prompt: list[int], **options: Any) -> Any:
        assert options == {"max_tokens": 11, "temperature": 0.0, "ignore_eos": True}
        first_s, decode_s = self.runs[len(self.prompts)]
        self.prompts.append(tuple(prompt))
        usage = Usage(
            prompt_tokens=len(prompt), cached_tokens=0, completion_tokens=11,
            time_to_first_token_s=first_s, decode_s=decode_s,
        )  # fmt: skip
        return SimpleNamespace(usage=usage)


def test_medians_without_the_warm_up():
    llama = TimedLlama([(99.0, 99.0), (0.5, 1.0), (2.0, 2.0), (1.0, 4.0)])
    found = measure(llama, prompt_tokens=20, new_tokens=11, repeats=3)  # type: ignore[arg-type]
    assert found.time_to_first_token_s == Spread(median=1.0, low=0.5, high=2.0)
    assert found.prefill_tokens_per_s == Spread(median=20.0, low=10.0, high=40.0)
    assert found.decode_tokens_per_s == Spread(median=5.0, low=2.5, high=10.0)


def test_prompts_are_ordinary_tokens_and_all_different():
    llama = TimedLlama([(1.0, 1.0)] * 6)
    measure(llama, prompt_tokens=20, new_tokens=11, repeats=5)  # type: ignore[arg-type]
    assert len(set(llama.prompts)) == 6
    assert len({prompt[:4] for prompt in llama.prompts}) == 6
    used = {token for prompt in llama.prompts for token in prompt}
    assert used <= set(range(40)) - {0, 3, 7, 39}


def test_numbers_out_of_range():
    with pytest.raises(
        CapacityError, match=r"90 prompt tokens and 11 new ones need a context of 101.* has 100"
    ):
        measure(TimedLlama([]), prompt_tokens=90, new_tokens=11)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`new_tokens` must be at least 2, got 1"):
        SpeedSettings(model="m", new_tokens=1)
    with pytest.raises(ConfigError, match="`prompt_tokens` must be at least 1, got 0"):
        SpeedSettings(model="m", prompt_tokens=0)


def test_errors_of_the_other_process_arrive(tmp_path: Path):
    with pytest.raises(UnknownModelError, match="no model is called 'nope'"):
        measure_apart(SpeedSettings(model="nope"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"m\.gguf"):
        measure_apart(SpeedSettings(model=str(tmp_path / "m.gguf")))


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch):
    dead = subprocess.CompletedProcess([], -9, "", "one\nKilled\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: dead)
    with pytest.raises(EngineError, match="ended with status -9: Killed; status -9 means"):
        measure_apart(SpeedSettings(model="m"))


def test_checkpoint_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(5))
    (tmp_path / "folder").mkdir()
    assert checkpoint_bytes(tmp_path) == 15
    assert checkpoint_bytes(tmp_path / "a") == 10


def test_peak_memory_is_the_process_own():
    """A child of a process with a high peak must not begin with that peak, as getrusage would have it."""
    ballast = bytearray(os.urandom(1024) * 300 * 1024)
    code = "from puna.evaluate.speed import peak_rss_bytes; print(peak_rss_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert peak_rss_bytes() > len(ballast) > 300e6
    assert 5e6 < json.loads(child.stdout) < 200e6


def test_machine():
    machine = this_machine()
    assert machine.usable_cpus == len(os.sched_getaffinity(0))
    assert machine.python == sys.version.split()[0]
    assert machine.memory_bytes is None or machine.memory_bytes > 100e6
    assert machine.cpu


def test_public_names():
    assert all(hasattr(speed, name) for name in speed.__all__)
