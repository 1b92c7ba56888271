from __future__ import annotations

import json

from puna.cli.description import describe, find_local
from puna.models.catalogue import CATALOGUE, DEFAULT_MODEL
from puna.models.open import open_checkpoint
from puna.models.packed import FORMATS


def test_json_of_the_default_model(puna, store_home, default_gguf):
    done = puna("show", "smollm2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["name"] == DEFAULT_MODEL
    assert facts["path"] == str(store_home / "models" / DEFAULT_MODEL / default_gguf.name)
    assert (facts["kind"], facts["licence"], facts["chat_format"]) == ("GGUF", "Apache-2.0", "template")
    assert (facts["file_bytes"], facts["parameters"]) == (98_362_432, 134_515_008)
    assert (facts["context_tokens"], facts["vocabulary"]) == (8192, 49152)
    assert facts["architecture"]["n_kv_heads"] == 3
    assert facts["tensors"] == [
        {"stored": "Q4_1", "count": 210, "packed": "int8_group32", "is_lossless": False},
        {"stored": "Q8_0", "count": 1, "packed": "int8_group32", "is_lossless": True},
    ]
    # bfloat16 takes 2 bytes a weight; the 61 norms of 576 stay in float32.
    assert facts["weight_bytes"]["bf16"] == 2 * 134_515_008 + 2 * 61 * 576


def test_bytes_are_those_that_the_engine_has(default_gguf, llama):
    checkpoint = open_checkpoint(default_gguf)
    facts = describe(checkpoint, None)
    assert set(facts["weight_bytes"]) == set(FORMATS)
    assert facts["name"] == default_gguf.stem
    assert facts["weight_bytes"]["auto"] == llama.info.weight_bytes
    assert facts["weight_bytes"]["int8"] == llama.info.weight_bytes  # auto is int8 throughout here
    assert facts["weight_bytes"]["int4"] < facts["weight_bytes"]["int8"] < facts["weight_bytes"]["bf16"]
    assert facts["cache_bytes_per_token"] == llama.engine.cache_bytes_per_token
    assert facts["memory_bytes"] == llama.info.weight_bytes + 8192 * facts["cache_bytes_per_token"]


def test_text(puna):
    rows = puna("show", "smollm2").stdout
    assert "matrices       210 stored as Q4_1, run as int8_group32 (rounded)\n" in rows
    assert "parameters     134,515,008\n" in rows


def test_a_model_that_is_not_here_is_not_fetched(puna, tmp_path):
    done = puna("show", "SmolLM2", "--json", PUNA_HOME=str(tmp_path))
    facts = json.loads(done.stdout)
    assert (facts["is_installed"], facts["licence"]) == (False, "Apache-2.0")
    assert (facts["download_bytes"], facts["file_bytes"]) == (92_871_040, 98_362_432)
    assert list(tmp_path.iterdir()) == []
    assert (
        "no; `puna chat smollm2-135m-instruct` fetches it"
        in puna("show", "smollm2", PUNA_HOME=str(tmp_path)).stdout
    )


def test_find_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_local("smollm2") == (CATALOGUE[0], None)
    (tmp_path / "smollm2").mkdir()
    row, path = find_local("smollm2")
    assert (row, str(path)) == (None, "smollm2")


def test_unknown_model(refused):
    assert refused("show", "nope", status=2).startswith("no model is called 'nope'; known: ")
