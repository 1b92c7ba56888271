from __future__ import annotations

import json

import pytest
from tests.meta_layout import quantized_piece, write_meta

from puna.cli.description import describe, describe_row, find_local
from puna.cli.show import _catalogue_rows, _rows
from puna.models.catalogue import CATALOGUE, DEFAULT_MODEL, resolve
from puna.models.config import ModelConfig
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
    work = facts["memory"]["auto"]["workspace_bytes"]
    assert facts["memory_bytes"] == llama.info.weight_bytes + 8192 * facts["cache_bytes_per_token"] + work


def test_text(puna):
    rows = puna("show", "smollm2").stdout
    assert "matrices      210 stored as Q4_1, run as int8_group32 (rounded)\n" in rows
    assert "parameters    134,515,008\n" in rows


def test_an_official_quantized_model(tmp_path):
    scheme = {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32}
    params = {
        "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 520, "multiple_of": 16,
        "ffn_dim_multiplier": 0.75, "use_scaled_rope": True, "rope_theta": 500000.0,
        "quantization_args": scheme | {"spinquant": True}, "lora_args": {"rank": 16, "scale": 2.0},
    }  # fmt: skip
    config = ModelConfig.from_meta(params, vocab_size=520, tied_embeddings=False)
    write_meta(tmp_path / "m", [quantized_piece(config)], params)
    facts = describe(open_checkpoint(tmp_path / "m"), None)
    assert facts["kind"] == "Meta quantized"
    assert facts["tensors"] == [
        {"stored": "BF16", "count": 28, "packed": "bf16", "is_lossless": True},
        {"stored": "int4_group32_f32", "count": 14, "packed": "int4_group32_f32", "is_lossless": True},
        {"stored": "int8_channel", "count": 2, "packed": "int8_channel", "is_lossless": True},
    ]
    added = ["a rotation before its down projections", "adaptors of rank 16"]
    assert facts["architecture"]["additions"] == added
    rows = _rows(facts)
    assert [text for _, text in rows if text.startswith("with ")] == [f"with {words}" for words in added]
    assert describe_row(resolve("llama3.2-1b-spinquant"))["is_runnable"]


def test_a_model_that_is_not_here_is_not_fetched(puna, tmp_path):
    done = puna("show", "SmolLM2", "--json", PUNA_HOME=str(tmp_path))
    facts = json.loads(done.stdout)
    assert (facts["is_installed"], facts["licence"]) == (False, "Apache-2.0")
    assert (facts["download_bytes"], facts["file_bytes"]) == (92_871_040, 98_362_432)
    assert list(tmp_path.iterdir()) == []
    assert (
        "no; `puna pull smollm2-135m-instruct` fetches it"
        in puna("show", "smollm2", PUNA_HOME=str(tmp_path)).stdout
    )


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_every_row_is_described_before_any_download(row, tmp_path, monkeypatch):
    monkeypatch.setenv("PUNA_HOME", str(tmp_path))
    facts = describe_row(row)
    json.dumps(facts, allow_nan=False)
    assert (facts["name"], facts["parameters"]) == (row.name, row.n_parameters)
    assert facts["duties"] == list(row.licence.duties)
    assert set(facts["memory"]) == {*FORMATS} - ({"int8", "int4"} if row.kind == "classifier" else set())
    assert dict(_catalogue_rows(facts))["licence"].startswith(row.licence.name)
    assert list(tmp_path.iterdir()) == []


def test_what_a_gated_model_needs_at_a_context(puna, tmp_path):
    done = puna("show", "llama3.2:1b", "--context", "131072", "--json", PUNA_HOME=str(tmp_path))
    facts = json.loads(done.stdout)
    assert (facts["name"], facts["default_context_tokens"]) == ("llama3.2-1b-instruct", 131072)
    assert facts["memory"]["int8"]["cache_bytes"] == 131072 * 16 * 2 * 512 * 2
    rows = puna("show", "llama3.2:1b", PUNA_HOME=str(tmp_path)).stdout
    assert "parameters    1,235,814,400, published as 1.23B\n" in rows
    assert '"Built with Llama"' in rows
    assert "memory, int4  1.12 GB: weights 812.8 MB, 8,192 tokens 268.4 MB, work 35.6 MB; " in rows


def test_what_an_int8_cache_needs(puna, tmp_path):
    done = puna("show", "llama3.2:1b", "--cache", "int8", "--json", PUNA_HOME=str(tmp_path))
    need = json.loads(done.stdout)["memory"]["int4"]
    assert need["cache_bytes"] == 8192 * 16 * 8 * (64 + 2 * 4 + 64 + 4)


def test_a_context_that_the_model_does_not_have(refused):
    message = refused("show", "llama2:7b", "--context", "5000", status=2)
    assert message == "`context` must be 2 to 4096 tokens for this model, got 5000"


def test_find_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_local("smollm2") == (CATALOGUE[0], None)
    (tmp_path / "smollm2").mkdir()
    row, path = find_local("smollm2")
    assert (row, str(path)) == (None, "smollm2")


def test_unknown_model(refused):
    assert refused("show", "nope", status=2).startswith("no model is called 'nope'; `puna list --all`")
