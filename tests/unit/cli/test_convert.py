from __future__ import annotations

import json

import torch

from puna.models.open import open_checkpoint


def test_says_sizes_and_writes_the_wanted_format(puna, default_gguf, tmp_path):
    out = tmp_path / "out"
    done = puna("convert", default_gguf, out, "--format", "bf16")
    assert (done.returncode, done.stdout) == (0, "")
    before, after = done.stderr.splitlines()
    assert before == f"{default_gguf}: 98.4 MB"
    n_bytes = sum(file.stat().st_size for file in out.iterdir())
    assert after == f"{out}: {n_bytes / 1e6:.1f} MB as bf16"
    assert json.loads((out / "config.json").read_text())["puna"]["format"] == "bf16"
    name = "model.layers.29.mlp.down_proj.weight"
    source = torch.from_numpy(open_checkpoint(default_gguf).tensor(name).to_float32())
    written = torch.from_numpy(open_checkpoint(out).tensor(name).to_float32())
    assert torch.equal(written, source.bfloat16().float())


def test_does_not_overwrite(refused, default_gguf, tmp_path):
    message = refused("convert", default_gguf, tmp_path, status=1)
    assert message == f"{tmp_path} exists already; remove it first or choose another name"


def test_what_is_made_from_a_llama_is_called_llama(refused, tmp_path):
    # Said before anything is fetched.
    assert refused("convert", "llama3.2-1b", tmp_path / "small", status=2) == (
        "the Llama 3.2 Community License asks that the name of a derived model begins with 'Llama', "
        "got 'small'; call it Llama-small"
    )


def test_a_model_of_the_catalogue_passes_its_licence_on(puna, tmp_path):
    done = puna("convert", "smollm2", tmp_path / "out", "--format", "int4")
    assert done.returncode == 0, done.stderr
    assert "licence: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0\n" in done.stderr
    assert done.stderr.endswith("passes on the licence and its notices\n")
