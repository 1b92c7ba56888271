"""The files that peers get hold the same weights as ours, and an engine that is always there runs one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.engines import Settings, load
from benchmarks.model_files import model_file, offered, sha256
from benchmarks.random_checkpoint import SHAPES, RandomCheckpoint

from puna.models.open import open_checkpoint

SMALL = "small"


@pytest.fixture(scope="module", autouse=True)
def small_shape() -> Iterator[None]:
    """The shape of 1B with two narrow layers; the vocabulary stays."""
    SHAPES[SMALL] = replace(
        SHAPES["llama3.2-1b"], dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, ffn_dim=96
    )
    yield
    del SHAPES[SMALL]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("kind", ["hf-bf16", "gguf-bf16", "puna-bf16"])
def test_weights_are_the_same_for_all(kind: str, folder: Path):
    random = RandomCheckpoint(SMALL, seed=3)
    written = open_checkpoint(model_file(kind, SMALL, 3, folder))
    assert written.config.tensor_shapes() == random.config.tensor_shapes()
    assert written.config.rope_frequencies() == random.config.rope_frequencies() or kind == "gguf-bf16"
    for name in random.config.tensor_shapes():
        expected, found = (c.tensor(name).to_float32() for c in (random, written))
        np.testing.assert_array_equal(found, expected)


def test_files_are_made_once_and_whole(folder: Path):
    path = model_file("puna-int4", SMALL, 0, folder)
    assert path == folder / "small-int4"
    before = sha256(path)
    (folder / "small-int4" / "mark").touch()
    assert model_file("puna-int4", SMALL, 0, folder) == path
    assert (path / "mark").exists()
    assert sha256(path) == before  # an empty file adds nothing
    assert not list(folder.glob("unfinished*"))
    assert model_file("puna-int4", SMALL, 1, folder) == folder / "small-seed1-int4"
    assert sha256(folder / "small-seed1-int4") != before


def test_a_run_that_broke_off_is_begun_again(folder: Path):
    broken = folder / "unfinished.small-seed2-int4"
    broken.mkdir()
    (broken / "half").touch()
    path = model_file("puna-int4", SMALL, 2, folder)
    assert not (path / "half").exists()


@pytest.mark.parametrize("engine", ["puna", "transformers"])
def test_engines_answer(engine: str, folder: Path):
    kind = {"puna": "puna-bf16", "transformers": "hf-bf16"}[engine]
    running = load(engine, model_file(kind, SMALL, 3, folder), Settings(threads=2, context=64, requests=6))
    times = running.run(list(range(2000, 2040)), 5)
    assert times.prefill_s > 0
    assert times.decode_s > 0
    assert times.cached_tokens == 0
    running.run_together([[2000 + i] * 30 for i in range(6)], 5)


def test_shapes_say_what_they_offer():
    assert offered("smollm2-135m-instruct") == ("default-gguf", "default-puna")
    assert {"puna-int4", "gguf-q4_0", "pte-8da4w"} <= set(offered("llama3.2-1b"))
