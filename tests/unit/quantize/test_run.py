"""Whole runs on tiny models: what is written, going on after a break, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import ADDITIONS, VARIANTS, add_parts, save_tiny

from puna.engine.native import NativeEngine
from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.open import open_checkpoint
from puna.models.packed import PunaCheckpoint, pack_checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.nn.fake_quantized import fake_quantize, fake_tokens
from puna.nn.model import Linear, rotary_tables
from puna.nn.packed import ModelCheckpoint
from puna.quantize.calibration import calibration_tokens, read_texts
from puna.quantize.gptq import gptq
from puna.quantize.layers import MATRICES, LayerRun, dequantized
from puna.quantize.memory import memory_estimate
from puna.quantize.recipe import Recipe
from puna.quantize.run import quantize
from puna.tokens import Tokenizer

TEXT = " ".join(f"Llama number {n} hums at {n * n % 97} hertz." for n in range(400))
SMALL = {"sequences": 8, "length": 64}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "in"
    save_tiny(folder, tie_word_embeddings=True)
    (folder / "text.txt").write_text(TEXT)
    return folder


def quantized(model: Path, out: Path, **recipe: object) -> Path:
    quantize(open_checkpoint(model), out, Recipe(**recipe), calibration=model / "text.txt")
    return out


def matrices(path: Path) -> dict[str, np.ndarray]:
    return {name: m.to_float32() for name, m in pack_checkpoint(open_checkpoint(path)).matrices.items()}


@pytest.mark.parametrize("rule", ["range", "search"])
def test_ptq_writes_what_the_fake_quantized_model_has(rule: str, model: Path, tmp_path: Path) -> None:
    written = pack_checkpoint(open_checkpoint(quantized(model, tmp_path / "out", rule=rule)))
    torch_model = from_checkpoint(open_checkpoint(model))
    fake_quantize(torch_model, rule)
    expected = pack_checkpoint(ModelCheckpoint(torch_model))
    for name, matrix in expected.matrices.items():
        assert np.array_equal(written.matrices[name].data, matrix.data)
    assert {m.format for m in written.matrices.values()} == {"int4_group32", "int8_channel"}


def test_gptq_solves_each_matrix_on_what_the_quantized_model_feeds_it(model: Path, tmp_path: Path) -> None:
    """Against hooks on the whole torch model, quantized matrix after matrix."""
    ours = matrices(quantized(model, tmp_path / "out", method="gptq", **SMALL))
    source = open_checkpoint(model)
    tokens = calibration_tokens(model / "text.txt", Tokenizer(source.vocabulary()), sequences=8, length=64)
    reference = from_checkpoint(source)
    table = reference.model.embed_tokens.weight
    with torch.no_grad():
        table.copy_(torch.from_numpy(ours["model.embed_tokens.weight"]))
    linears = {n: m for n, m in reference.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in n}
    for module in linears.values():
        module.register_forward_pre_hook(lambda _, args: (fake_tokens(args[0]),))
    inputs: dict[str, torch.Tensor] = {}
    for name, module in linears.items():
        handle = module.register_forward_pre_hook(lambda _, args: inputs.update(x=args[0].flatten(0, 1)))
        with torch.no_grad():
            reference(tokens)
            handle.remove()
            solution = gptq(module.weight, inputs["x"].T @ inputs["x"], rule="signed")
            module.weight.copy_(dequantized(solution))
        # Sums in another order may turn a rounding here and there.
        same = np.isclose(module.weight.detach().numpy(), ours[f"{name}.weight"], atol=1e-6).mean()
        assert same > 0.97, name
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(ours[f"{name}.weight"]))


def test_gptq_is_nearer_to_the_model_than_ptq(model: Path, tmp_path: Path) -> None:
    quantized(model, tmp_path / "ptq")
    quantized(model, tmp_path / "gptq", method="gptq", sequences=32, length=128)
    source = open_checkpoint(model)
    tokens = calibration_tokens(model / "text.txt", Tokenizer(source.vocabulary()), sequences=7, length=200)
    original = from_checkpoint(source)
    errors = []
    for method in ("ptq", "gptq"):
        other = from_checkpoint(open_checkpoint(tmp_path / method))
        with torch.no_grad():
            errors.append(float((other(tokens) - original(tokens)).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_a_broken_off_run_goes_on_and_ends_the_same(model: Path, tmp_path: Path) -> None:
    whole = matrices(quantized(model, tmp_path / "whole", method="gptq", **SMALL))
    seen: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 10:
            raise KeyboardInterrupt

    recipe, out = Recipe(method="gptq", **SMALL), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        quantize(open_checkpoint(model), out, recipe, calibration=model / "text.txt", progress=stop)
    assert not out.exists()
    seen.clear()
    quantize(
        open_checkpoint(model),
        out,
        recipe,
        calibration=model / "text.txt",
        progress=lambda stage, done, total: seen.append(done),
    )
    assert seen == list(range(8, 15))  # the first layer was done
    for name, values in matrices(out).items():
        assert np.array_equal(values, whole[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


LEARNED = {"rotation_steps": 12, "distill_steps": 12, **SMALL}


class Broken(Exception):
    """Stands for a process that is killed."""


@pytest.mark.parametrize("tied", [True, False])
def test_what_learns_goes_on_after_any_break_and_ends_the_same(tied: bool, tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", tie_word_embeddings=tied)
    (tmp_path / "in" / "text.txt").write_text(TEXT)
    recipe = {"method": "distill", "follows_original": True, **LEARNED}
    whole = matrices(quantized(tmp_path / "in", tmp_path / "whole", **recipe))
    breaks = [("learning rotations", 11), ("rounding", 3), ("rounding", 8), ("distilling", 11)]
    seen: list[tuple[str, int]] = []
    for until in [*breaks, None]:

        def stop(stage: str, done: int, total: int, until: tuple[str, int] | None = until) -> None:
            seen.append((stage, done))
            if (stage, done) == until:
                raise Broken

        source, out = open_checkpoint(tmp_path / "in"), tmp_path / "out"
        try:
            quantize(source, out, Recipe(**recipe), calibration=tmp_path / "in" / "text.txt", progress=stop)
        except Broken:
            assert not out.exists()
    # Ten steps are kept, and layers that are whole.
    again = [("learning rotations", 11), *(("rounding", n) for n in (1, 2, 3, 8)), ("distilling", 11)]
    assert sorted(set(seen)) == sorted(
        {*(("learning rotations", n + 1) for n in range(12)), *(("distilling", n + 1) for n in range(12))}
        | {("rounding", n + 1) for n in range(14)}
    )
    assert sorted(pair for pair in set(seen) if seen.count(pair) > 1) == sorted(again)
    for name, values in matrices(tmp_path / "out").items():
        assert np.array_equal(values, whole[name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["spinquant", "distill"])
def test_the_engine_runs_what_was_rotated(method: str, tied: bool, tmp_path: Path) -> None:
    """It is nearer to the original than rounding to nearest is, and the engine computes what torch does."""
    save_tiny(tmp_path / "in", tie_word_embeddings=tied)
    (tmp_path / "in" / "text.txt").write_text(TEXT)
    recipe = {"rotation_steps": 4, "distill_steps": 30, "sequences": 32, "length": 128}
    source = open_checkpoint(tmp_path / "in")
    tokens = torch.tensor(Tokenizer(source.vocabulary()).encode(TEXT[3000:3200]))
    with torch.no_grad():
        original = from_checkpoint(source)(tokens[None])[0].numpy()
    errors = []
    for name in ("ptq", method):
        written = open_checkpoint(quantized(tmp_path / "in", tmp_path / name, method=name, **recipe))
        assert written.config.has_down_rotation == (name != "ptq")
        assert written.config.has_output_rotation == (name != "ptq" and tied)
        engine = NativeEngine(pack_checkpoint(written), Tokenizer(written.vocabulary()), cache="f32")
        native = engine.logits(tokens.tolist())
        engine.close()
        errors.append(float(np.square(native - original).mean()))
        model = from_checkpoint(written)
        for module in model.modules():
            if isinstance(module, Linear) or module is model.lm_head:
                module.register_forward_pre_hook(lambda _, args: (fake_tokens(args[0]),))
        if written.config.has_output_rotation:  # the engine multiplies with it in bfloat16
            model.model.norm.rotation.register_forward_pre_hook(lambda _, args: (args[0].bfloat16().float(),))
        with torch.no_grad():
            ours = model(tokens[None])[0].numpy()
        # A sum in another order now and then makes another integer; the cache hands it on to all rows behind.
        difference = np.abs(native - ours)
        assert np.median(difference, axis=1)[:8].min() < 1e-5
        assert np.square(difference).mean() < 0.02 * errors[-1]
    assert errors[1] < 0.8 * errors[0], errors


def test_what_is_rotated_already_is_refused(model: Path, tmp_path: Path) -> None:
    quantized(model, tmp_path / "once", method="spinquant", **(LEARNED | {"rotation_steps": 0}))
    for method in ("spinquant", "distill"):
        with pytest.raises(ConfigError, match=r"has a rotation before .*needs the plain model"):
            quantize(
                open_checkpoint(tmp_path / "once"),
                tmp_path / "twice",
                Recipe(method=method, **SMALL),
                calibration=model / "text.txt",
            )


def test_a_full_disk_is_found_out_before_the_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: used._replace(free=1000))
    for method in ("ptq", "gptq"):
        with pytest.raises(StoreError, match=r"needs \d+ bytes more, the disk has 1000 free"):
            quantized(model, tmp_path / "out", method=method, **SMALL)
    assert list(tmp_path.iterdir()) == []


def begun(model: Path, out: Path, stop_at: tuple[str, int], **recipe: object) -> None:
    """Break a run off."""

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == stop_at:
            raise Broken

    with pytest.raises(Broken):
        quantize(open_checkpoint(model), out, Recipe(**recipe), calibration=model / "text.txt", progress=stop)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"act_order": True, "rounds_tokens": False}, "act_order, rounds_tokens"),
        ({"sequences": 7}, "text"),
        ({"method": "spinquant"}, "method"),
    ],
)
def test_another_recipe_leaves_unfinished_work_alone(
    change: dict[str, object], named: str, model: Path, tmp_path: Path
) -> None:
    recipe = {"method": "gptq", **SMALL}
    begun(model, tmp_path / "out", ("rounding", 10), **recipe)
    with pytest.raises(ConfigError, match=f"holds an unfinished run with another {named}; ask for the same"):
        quantized(model, tmp_path / "out", **{**recipe, **change})
    quantized(model, tmp_path / "out", **recipe)


def test_options_that_a_stage_does_not_read_may_change(model: Path, tmp_path: Path) -> None:
    """gptq reads none of rotations and scales; rotations and layers nothing of scales."""
    seen: list[int] = []

    def steps(stage: str, done: int, total: int) -> None:
        seen.append(done)

    begun(model, tmp_path / "gptq", ("rounding", 10), method="gptq", **SMALL)
    changed = Recipe(method="gptq", distill_steps=3, rotation_steps=7, seed=5, **SMALL)
    quantize(
        open_checkpoint(model),
        tmp_path / "gptq",
        changed,
        calibration=model / "text.txt",
        progress=steps,
    )
    assert seen == list(range(8, 15))
    recipe, out = {"method": "distill", **LEARNED}, tmp_path / "out"
    begun(model, out, ("distilling", 11), **recipe)
    changed = {**recipe, "distill_steps": 4}
    with pytest.raises(ConfigError, match=r"quantizing/scales holds .* another distill_steps; .* or remove"):
        quantized(model, out, **changed)
    shutil.rmtree(tmp_path / ".out.quantizing" / "scales")
    seen.clear()
    quantize(open_checkpoint(model), out, Recipe(**changed), calibration=model / "text.txt", progress=steps)
    assert seen == [1, 2, 3, 4]


def test_other_weights_in_the_same_place_are_another_model(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "in")
    recipe = {"method": "gptq", **SMALL}
    begun(tmp_path / "in", tmp_path / "out", ("rounding", 10), **recipe)
    weights = load_file(tmp_path / "in" / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] *= 2
    save_file(weights, tmp_path / "in" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="an unfinished run with another model;"):
        quantized(tmp_path / "in", tmp_path / "out", **recipe)


def spoil(model: Path, folder: Path, name: str) -> None:
    """Copy a model with a weight that is no number."""
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((model / file).read_bytes())
    weights = load_file(model / "model.safetensors")
    weights[name].view(-1)[5] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["layers.1.mlp.up_proj", "layers.1.input_layernorm", "norm", "embed_tokens"])
def test_weights_that_are_no_numbers_are_refused(name: str, model: Path, tmp_path: Path) -> None:
    spoil(model, tmp_path, f"model.{name}.weight")
    before = sorted(tmp_path.iterdir())
    for method in ("ptq", "gptq", "spinquant", "distill"):
        with pytest.raises(CheckpointError, match=rf"model\.{name}\.weight.* not finite"):
            quantize(
                open_checkpoint(tmp_path),
                tmp_path / "out",
                Recipe(method=method, **LEARNED),
                calibration=model / "text.txt",
            )
    assert sorted(tmp_path.iterdir()) == before


def test_a_weight_that_is_too_large_is_found_with_its_matrix(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "in")
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][2, 3] = 1e6
    save_file(weights, tmp_path / "in" / "model.safetensors", {"format": "pt"})
    seen: list[int] = []
    with pytest.raises(
        CheckpointError, match=r"in: mlp\.down_proj has a weight that is too large for its scale"
    ):
        quantize(
            open_checkpoint(tmp_path / "in"),
            tmp_path / "out",
            Recipe(method="gptq", **SMALL),
            calibration=model / "text.txt",
            progress=lambda stage, done, total: seen.append(done),
        )
    assert seen == list(range(1, 7))


@pytest.mark.parametrize("method", ["ptq", "gptq"])
def test_a_rotated_model_with_adaptors_stays_one(method: str, model: Path, tmp_path: Path) -> None:
    source = add_parts(from_checkpoint(open_checkpoint(model)))
    vocabulary = open_checkpoint(model).vocabulary()
    quantize(
        ModelCheckpoint(source, vocabulary),
        tmp_path / "out",
        Recipe(method=method, **SMALL),
        calibration=model / "text.txt",
    )
    written = pack_checkpoint(open_checkpoint(tmp_path / "out"))
    assert written.config == source.config
    for name, weight in source.state_dict().items():
        if "lora" in name or "rotation" in name:
            assert written.matrices[name].format == "bf16"
            assert np.array_equal(written.matrices[name].to_float32(), weight.bfloat16().float().numpy())


def test_layers_with_adaptors_calibrate_as_the_quantized_model_computes(model: Path) -> None:
    """Adaptors read what is not rounded to 8 bits."""
    source = add_parts(from_checkpoint(open_checkpoint(model)))
    expected = add_parts(source, **{name: getattr(source.config, name) for name in ADDITIONS})
    expected.load_state_dict(source.state_dict())
    fake_quantize(expected, "signed")
    stream = torch.randn((3, 20, source.config.dim), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(20)
    with torch.no_grad():
        layer = expected.model.layers[0]
        wanted = layer(stream, positions, rotary_tables(source.config, positions))
    run = LayerRun(source.config, source.model.layers[0], stream, rounds_tokens=True)
    run.advance({name: layer.get_submodule(name).quantized() for name in MATRICES})
    torch.testing.assert_close(stream, wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_is_refused_at_once(model: Path, tmp_path: Path) -> None:
    source, out = open_checkpoint(model), tmp_path / "out"
    with pytest.raises(ConfigError, match="needs calibration text"):
        quantize(source, out, Recipe(method="gptq"))
    with pytest.raises(
        ConfigError, match=r"`length` must be at most 1024, the context of .*in, got 2048; ask"
    ):
        quantize(source, out, Recipe(method="gptq"), calibration=model / "text.txt")
    with pytest.raises(ConfigError, match="128 sequences of 1024 need 131072; give more text"):
        quantize(source, out, Recipe(method="gptq", length=1024), calibration=model / "text.txt")
    with pytest.raises(ConfigError, match="does not exist"):
        quantize(source, out, Recipe(method="gptq", **SMALL), calibration=tmp_path / "none.txt")
    with pytest.raises(StoreError, match="exists already"):
        quantize(source, tmp_path, Recipe())
    for wrong in ({"method": "gtpq"}, {"rule": "seek"}, {"damping": 0.0}, {"sequences": 0}, {"length": 1},
        {"rotation_steps": -1}, {"distill_steps": -1}, {"seed": -1}, {"seed": 1 << 63},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            Recipe(**wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["ptq", "gptq"])
def test_a_width_that_is_no_multiple_of_32_has_a_shorter_group(method: str, tmp_path: Path) -> None:
    """Its scale is that of the columns that are left, and nothing is added to what they compute."""
    save_tiny(tmp_path / "in", **VARIANTS["odd sizes"])
    (tmp_path / "in" / "text.txt").write_text(TEXT)
    out = quantized(tmp_path / "in", tmp_path / "out", method=method, rule="range", **SMALL)
    source, made = open_checkpoint(tmp_path / "in"), open_checkpoint(out)
    assert isinstance(made, PunaCheckpoint)
    for name, shape in source.config.tensor_shapes().items():
        if ".layers." not in name or len(shape) == 1:
            continue
        parts = made.packed(name).to_integers()
        assert parts is not None
        q, scales = parts
        assert shape[1] % 32, "every matrix of this model is to have a group that is not whole"
        assert q.shape == shape
        assert scales.shape == (shape[0], shape[1] // 32 + 1)
        if method == "ptq":
            rest = source.tensor(name).to_float32()[:, shape[1] // 32 * 32 :].astype(np.float64)
            expected = np.abs(rest).max(1) / 7.5
            np.testing.assert_allclose(scales[:, -1], expected, rtol=2.0**-10)


def test_text_comes_from_files_folders_and_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    messages = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}]
    lines = [json.dumps({"messages": messages}), "", json.dumps({"text": "four"})]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    (tmp_path / "c.bin").write_bytes(b"\xff")
    assert list(read_texts(tmp_path)) == ["one", "two\nthree", "four"]
    (tmp_path / "d.jsonl").write_text('{"text": "x"}\n{"tex": 1}\n')
    with pytest.raises(ConfigError, match=r"d\.jsonl, line 2: needs an object"):
        list(read_texts(tmp_path / "d.jsonl"))
    with pytest.raises(ConfigError, match="cannot be read as text"):
        list(read_texts(tmp_path / "c.bin"))


def test_an_8b_model_is_expected_to_fit_24_gib() -> None:
    from puna.models.architectures import LLAMA31_8B

    shapes = LLAMA31_8B.tensor_shapes()
    for method in ("ptq", "gptq", "spinquant", "distill"):
        recipe = Recipe(method=method, follows_original=method != "ptq")
        assert memory_estimate(LLAMA31_8B, dict.fromkeys(shapes, "BF16"), recipe) < 22 << 30, method
    # A long sequence goes through a layer whole.
    long = Recipe(method="gptq", sequences=8, length=32768)
    assert 14 << 30 < memory_estimate(LLAMA31_8B, dict.fromkeys(shapes, "BF16"), long) < 20 << 30
    # What learns reads bfloat16 from the file; of other types it makes its own.
    quantized = dict.fromkeys(shapes, "Q4_0")
    assert 16 << 30 < memory_estimate(LLAMA31_8B, quantized, Recipe(method="spinquant")) < 22 << 30
    assert memory_estimate(LLAMA31_8B, quantized, Recipe(method="gptq")) < 16 << 30
