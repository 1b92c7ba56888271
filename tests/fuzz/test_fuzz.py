"""A few seconds of every fuzz target, with the same files each time."""

from __future__ import annotations

import zlib
from importlib import import_module
from pathlib import Path

import pytest
from tests.fuzz.harness import accepts, mutations

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py"))
COUNT = 300


def test_there_is_a_target_for_every_parser() -> None:
    parsers = (
        "gguf safetensors torch pickle config params index tokenizer_json tokenizer_model folder packed "
        "source listing tool_calls template meta_quantized"
    )
    assert set(TARGETS) == {f"fuzz_{name}" for name in parsers.split()}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_taken_or_refused(name: str, tmp_path: Path) -> None:
    target = import_module(f"tests.fuzz.{name}")
    seeds = target.seeds()
    assert all(accepts(target.parse, seed, tmp_path) for seed in seeds)
    outcomes = {True: 0, False: 0}
    for data in mutations(seeds, COUNT, seed=zlib.crc32(name.encode())):
        outcomes[accepts(target.parse, data, tmp_path)] += 1
    # Were all of them taken, or none, the damage would be too little or too much to tell anything. An answer
    # of a model is never refused.
    assert outcomes[True] >= COUNT // 100, outcomes
    assert outcomes[False] >= COUNT // 100 or name == "fuzz_tool_calls", outcomes
