from __future__ import annotations

import json

import pytest
from tests.tiny import save_tiny

from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint


@pytest.fixture
def model(tmp_path):
    save_tiny(tmp_path / "in", eos_token_id=[257, 259])  # of a text, and of a turn
    (tmp_path / "text.txt").write_text("Llamas hum when they carry too much. " * 40)
    return tmp_path / "in"


def test_gptq_says_what_it_needs_and_made(puna, model, tmp_path):
    out = tmp_path / "out"
    done = puna(
        "quantize", model, out, "--calibration", tmp_path / "text.txt", "--sequences", "4", "--length", "64"
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    needs, before, after = done.stderr.splitlines()
    assert needs.startswith("needs about ")
    assert before.startswith(f"{model}: ")
    assert after.startswith(f"{out}: ")
    assert after.endswith(" by gptq")
    formats = {m.format for m in pack_checkpoint(open_checkpoint(out)).matrices.values()}
    assert formats == {"int4_group32", "int8_channel"}


def test_ptq_needs_no_text(puna, model, tmp_path):
    done = puna("quantize", model, tmp_path / "out", "--method", "ptq", "--rule", "range")
    assert done.returncode == 0, done.stderr
    assert "puna" in json.loads((tmp_path / "out" / "config.json").read_text())


def test_qat_tells_of_its_training(puna, model, tmp_path):
    out = tmp_path / "out"
    asked = ("--method", "qat", "--data", tmp_path / "text.txt", "--steps", "10", "--length", "32")
    done = puna("quantize", model, out, *asked, "--held-out", "2")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    needs, *steps, before, after = done.stderr.splitlines()
    assert needs.startswith("needs about ")
    assert [line.split(",")[0] for line in steps] == [f"  backbone: {n} of 10 steps" for n in range(1, 11)]
    assert all(", held out " in line for line in steps)
    assert before.startswith(f"{model}: ")
    assert after.endswith(" by qat")
    formats = {m.format for m in pack_checkpoint(open_checkpoint(out)).matrices.values()}
    assert formats == {"int4_group32", "int8_channel"}


def test_a_seed_counts_for_training(puna, model, tmp_path):
    asked = ("--method", "qat", "--data", tmp_path / "text.txt", "--steps", "1", "--length", "32")
    weights = []
    for seed in ("0", "1"):
        done = puna("quantize", model, tmp_path / seed, *asked, "--seed", seed)
        assert done.returncode == 0, done.stderr
        weights.append((tmp_path / seed / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]


def test_qat_goes_on_from_a_rotated_model(puna, model, tmp_path):
    text = ("--calibration", tmp_path / "text.txt", "--sequences", "4", "--length", "64")
    turned, out = tmp_path / "turned", tmp_path / "out"
    done = puna("quantize", model, turned, "--method", "spinquant", "--rotation-steps", "0", *text)
    assert done.returncode == 0, done.stderr
    asked = ("--method", "qat", "--start", turned, "--data", tmp_path / "text.txt", "--length", "32")
    done = puna("quantize", model, out, *asked, "--steps", "2", "--batch", "2")
    assert done.returncode == 0, done.stderr
    assert open_checkpoint(out).config == open_checkpoint(turned).config
    assert open_checkpoint(out).config.has_down_rotation
    done = puna("quantize", model, tmp_path / "other", *asked, "--rule", "clip")
    assert done.returncode == 2
    assert "`--rule` and `--start` cannot go together" in done.stderr


def test_qat_lora_tells_of_each_stage_and_writes_adaptors(puna, model, tmp_path):
    out, pairs = tmp_path / "out", tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hum?", "chosen": "Yes.", "rejected": "No"}\n' * 4)
    asked = ("--method", "qat-lora", "--data", tmp_path / "text.txt", "--steps", "2", "--length", "32")
    done = puna("quantize", model, out, *asked, "--preferences", pairs)
    assert done.returncode == 0, done.stderr
    told = [line.split(",")[0].strip() for line in done.stderr.splitlines() if " steps, " in line]
    stages = ("backbone", "adaptors", "preferences")
    assert told == [f"{stage}: {n} of 2 steps" for stage in stages for n in (1, 2)]
    written = open_checkpoint(out)
    assert (written.config.lora_rank, written.config.lora_scale) == (16, 2.0)
    assert written.dtypes["model.layers.0.mlp.up_proj.lora_A.weight"] == "bf16"


def test_wrong_arguments_are_told_in_a_line(puna, refused, model, tmp_path):
    out = tmp_path / "out"
    assert "method 'qta' is unknown" in refused("quantize", model, out, "--method", "qta", status=2)
    for method, option, value, methods in (
        ("gptq", "--start", model, "qat"),
        ("gptq", "--steps", 200, "qat, qat-lora"),  # the default, but given
        ("gptq", "--seed", 1, "spinquant, distill, qat, qat-lora"),
        ("ptq", "--calibration", "/nonexistent", "gptq, spinquant, distill"),
        ("ptq", "--act-order", None, "gptq, spinquant, distill"),
        ("spinquant", "--distill-steps", 3, "distill"),
        ("ptq", "--device", "cuda", "gptq, spinquant, distill, qat, qat-lora"),
        ("qat", "--preferences", "/nonexistent", "qat-lora"),
        ("qat-lora", "--rotation-steps", 3, "spinquant, distill"),
    ):
        given = (option,) if value is None else (option, value)
        line = refused("quantize", model, out, "--method", method, *given, status=2)
        assert line.startswith(
            f"`{option}` is for the methods {methods}, and the method is {method!r}; leave"
        )
    line = refused("quantize", model, out, "--device", "abacus", status=2)
    assert line.startswith("torch cannot use the device 'abacus': ")
    assert line.endswith("try cpu")
    done = puna("quantize", model, out)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        "puna: error: method 'gptq' needs calibration text; give a file, folder or .jsonl"
    ]
    done = puna("quantize", model, out, "--method", "qat")
    assert done.returncode == 2
    assert "method 'qat' needs data to train on; give it with --data" in done.stderr
    done = puna("quantize", model, tmp_path, "--method", "ptq")
    assert done.returncode == 1
    assert "exists already" in done.stderr.splitlines()[-1]


def test_without_torch_it_says_what_to_install(model, tmp_path):
    import subprocess
    import sys

    from tests.contracts.test_lightness import BLOCK_TORCH

    code = BLOCK_TORCH.replace('ImportError(f"{name} is blocked")', "ModuleNotFoundError(name=name)")
    code += f"\nsys.argv = ['puna', 'quantize', {str(model)!r}, {str(tmp_path / 'out')!r}]"
    code += "\nfrom puna.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "puna: error: `puna quantize` needs PyTorch; pip install 'puna[train]'\n"
    assert done.returncode == 2
