"""The same methods on a GPU: nearly the CPU's results, and work that goes on from one to the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import VARIANTS, save_tiny

from puna.models.open import open_checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.quantize import run as running
from puna.quantize.recipe import Recipe
from puna.quantize.run import quantize
from puna.train.qat import quantize_by_training
from puna.train.qat_recipe import QatRecipe
from puna.train.settings import TrainSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TEXT = " ".join(f"Llama number {n} hums at {n * n % 97} hertz." for n in range(400))


@pytest.fixture(scope="module", params=["tied", "odd sizes"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "in"
    save_tiny(folder, **VARIANTS[request.param], eos_token_id=[257, 259])  # 259 ends a turn
    (folder / "text.txt").write_text(TEXT)
    pairs = [{"prompt": f"Is {n} odd?", "chosen": "Yes.", "rejected": "No"} for n in range(20)]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs))
    return folder


def quantized(model: Path, out: Path, device: str, method: str, progress: Any = None, **changes: Any) -> Path:
    recipe = Recipe(method=method, sequences=8, length=64, rotation_steps=4, distill_steps=4, **changes)
    text = model / "text.txt"
    quantize(open_checkpoint(model), out, recipe, calibration=text, progress=progress, device=device)
    return out


def trained(
    model: Path, out: Path, device: str, method: str, loss: str = "text", **sources: Any
) -> list[float]:
    losses = []
    stage = TrainSettings(steps=4, batch=4, learning_rate=1e-3)
    recipe = QatRecipe(
        method=method, length=64, held_out=2, loss=loss, backbone=stage, adaptors=stage, preferences=stage
    )
    quantize_by_training(
        open_checkpoint(model),
        out,
        recipe,
        data=model / "text.txt",
        progress=lambda _, step, __: losses.append(step.loss),
        device=device,
        **sources,
    )
    return losses


@torch.no_grad()
def loss_of(model: Path, out: Path) -> float:
    """Mean divergence of a quantized model's predictions from the original's."""
    tokens = torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(1))
    there, here = (
        from_checkpoint(open_checkpoint(path))(tokens).double().log_softmax(-1) for path in (model, out)
    )
    return float((there.exp() * (there - here)).sum(-1).mean())


def assert_as_good(model: Path, ours: Path, theirs: Path) -> None:
    """What is lost is the same: a sum in another order turns roundings, and each turns others after it."""
    assert loss_of(model, ours) <= 1.2 * loss_of(model, theirs)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gptq", {}),
        ("gptq", {"act_order": True, "follows_original": True}),
        ("spinquant", {}),
        ("distill", {}),
    ],
)
def test_a_gpu_quantizes_as_the_cpu(
    model: Path, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    ours = quantized(model, tmp_path / "gpu", "cuda", method, **options)
    theirs = quantized(model, tmp_path / "cpu", "cpu", method, **options)
    assert_as_good(model, ours, theirs)
    if (method, options) == ("gptq", {}):
        first = "model.layers.0.self_attn.q_proj.weight"
        a, b = (open_checkpoint(path).tensor(first).to_float32() for path in (ours, theirs))
        assert np.mean(a != b) < 0.05


@pytest.mark.parametrize("loss", ["text", "distill"])
def test_a_gpu_trains_as_the_cpu(model: Path, tmp_path: Path, loss: str) -> None:
    losses = [trained(model, tmp_path / device, device, "qat", loss=loss) for device in ("cuda", "cpu")]
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert_as_good(model, tmp_path / "cuda", tmp_path / "cpu")


def test_a_gpu_trains_from_a_start_as_the_cpu(model: Path, tmp_path: Path) -> None:
    start = open_checkpoint(quantized(model, tmp_path / "start", "cpu", "spinquant"))
    losses = [trained(model, tmp_path / device, device, "qat", start=start) for device in ("cuda", "cpu")]
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert_as_good(model, tmp_path / "cuda", tmp_path / "cpu")


def test_adaptors_and_preferences_are_trained_on_a_gpu(model: Path, tmp_path: Path) -> None:
    """Adaptors begin with other random numbers than on the CPU, so only the first stage is compared."""
    options = {"preferences": model / "pairs.jsonl"}
    losses = [trained(model, tmp_path / device, device, "qat-lora", **options) for device in ("cuda", "cpu")]
    np.testing.assert_allclose(losses[0][:4], losses[1][:4], rtol=0.05)
    assert len(losses[0]) == 12
    assert np.isfinite(losses[0]).all()
    assert open_checkpoint(tmp_path / "cuda").config.lora_rank == 16


@pytest.mark.parametrize("broken_off", ["learning rotations", "rounding", "distilling"])
def test_work_of_a_gpu_goes_on_on_the_cpu(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_off: str
) -> None:
    monkeypatch.setattr(running, "_KEPT_STEPS", 2)

    def break_off(stage: str, done: int, _: int) -> None:
        if (stage, done) == (broken_off, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantized(model, tmp_path / "out", "cuda", "distill", break_off)
    ours = quantized(model, tmp_path / "out", "cpu", "distill")
    assert_as_good(model, ours, quantized(model, tmp_path / "cpu", "cpu", "distill"))
