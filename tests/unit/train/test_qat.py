"""Quantization by training: the file is the trained model, nearer to the float one than rounding gets."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import save_tiny

from puna.engine.native import NativeEngine
from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, write_checkpoint
from puna.nn.checkpoint import from_checkpoint, load
from puna.nn.fake_quantized import fake_quantize
from puna.nn.grid import keep_grid
from puna.nn.model import Transformer
from puna.nn.packed import ModelCheckpoint
from puna.quantize.recipe import Recipe
from puna.quantize.run import quantize
from puna.tokens import Tokenizer
from puna.train.adaptors import add_adaptors
from puna.train.data import load_rows
from puna.train.loop import Step, train
from puna.train.losses import cross_entropy
from puna.train.qat import quantize_by_training
from puna.train.qat_recipe import QatRecipe, memory_estimate
from puna.train.settings import TrainSettings
from puna.train.state import RunFolder

_RANDOM = random.Random(0)
_WORDS = ["".join(_RANDOM.choices(ascii_lowercase, k=_RANDOM.randint(2, 7))) for _ in range(300)]
TEXT, HELD_OUT = (" ".join(_RANDOM.choices(_WORDS, k=k)) for k in (8000, 30))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they gain in models this small, and most of all where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    # The chat template ends a turn with 259, a text ends with 257.
    save_tiny(folder, tie_word_embeddings=True, eos_token_id=[257, 259])
    (folder / "text.txt").write_text(TEXT)
    pairs = [{"prompt": f"{word}?", "chosen": "Yes.", "rejected": "No"} for word in _WORDS[:20]]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs))
    return folder


@pytest.fixture(scope="module", params=["gptq", "spinquant"])
def start(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `puna quantize` makes of the tiny model, rotated and not."""
    out = tmp_path_factory.mktemp("start") / request.param
    recipe = Recipe(method=request.param, rule="search", sequences=32, length=128, rotation_steps=0)
    quantize(open_checkpoint(tiny), out, recipe, calibration=tiny / "text.txt")
    return out


def settings(steps: int, rate: float = 1e-3) -> TrainSettings:
    return TrainSettings(steps=steps, batch=8, learning_rate=rate, save_every_s=0)


def trained(
    tiny: Path,
    out: Path,
    *,
    stop_after: int | None = None,
    data: Path | None = None,
    preferences: Path | None = None,
    start: Path | None = None,
    seen: list[tuple[str, Step]] | None = None,
    **changes: Any,
) -> list[tuple[str, Step]]:
    """Quantize into `out`; what was told of the steps, broken off after so many of them where asked."""
    seen = [] if seen is None else seen
    last = None if stop_after is None else len(seen) + stop_after

    def progress(stage: str, step: Step, total: int) -> None:
        seen.append((stage, step))
        if len(seen) == last:
            raise KeyboardInterrupt

    stages = {"backbone": settings(6), "adaptors": settings(6), "preferences": settings(6)}
    quantize_by_training(
        open_checkpoint(tiny),
        out,
        QatRecipe(**{"length": 40, **stages, **changes}),
        data=tiny / "text.txt" if data is None else data,
        preferences=preferences,
        start=None if start is None else open_checkpoint(start),
        progress=progress,
    )
    return seen


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def held_out_ids(path: Path) -> list[int]:
    return Tokenizer(open_checkpoint(path).vocabulary()).encode(HELD_OUT)


def native_logits(path: Path) -> np.ndarray[Any, Any]:
    source = open_checkpoint(path)
    engine = NativeEngine(pack_checkpoint(source), Tokenizer(source.vocabulary()), cache="f32")
    logits = engine.logits(held_out_ids(path))
    engine.close()
    return logits


def divergence(path: Path, tiny: Path) -> float:
    """Mean KL of the engine's predictions from the float model's, on text that was not learned from."""
    with torch.no_grad():
        aim = load(str(tiny))(torch.tensor([held_out_ids(tiny)]))[0].double().log_softmax(-1)
    found = torch.from_numpy(native_logits(path)).double().log_softmax(-1)
    return float((aim.exp() * (aim - found)).sum(-1).mean())


def kept_state(out: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(out.with_name(f".{out.name}.training") / stage / "state.safetensors")


def assert_file_is_model(out: Path, model: Transformer) -> None:
    """Bit for bit the integers and scales of the layers, and the engine's logits those of the model."""
    written, packed = pack_checkpoint(open_checkpoint(out)), pack_checkpoint(ModelCheckpoint(model))
    assert written.matrices.keys() == packed.matrices.keys()
    for name, matrix in written.matrices.items():
        assert matrix.format == packed.matrices[name].format
        assert np.array_equal(matrix.data, packed.matrices[name].data), name
    for name, norm in written.norms.items():
        assert np.array_equal(norm, packed.norms[name]), name
    with torch.no_grad():
        ours = model(torch.tensor([held_out_ids(out)]))[0].numpy()
    error = np.abs(native_logits(out) - ours)
    # An input at a tie may round the other way, which moves the logits of its place and those after it.
    assert np.median(error) < 1e-4, float(np.median(error))
    assert error.max() < 0.15, float(error.max())


def fill(model: Transformer, state: dict[str, torch.Tensor]) -> None:
    """Give a model the weights of a stage's state."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"weight.{name}" in state:
                parameter.copy_(state[f"weight.{name}"])


@pytest.mark.parametrize("rule", ["signed", "range"])
def test_the_file_is_the_trained_model(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(RunFolder, "remove", lambda self: None)
    trained(tiny, tmp_path / "out", rule=rule)
    state, model = kept_state(tmp_path / "out", "backbone"), load(str(tiny))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fill(model, state)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name  # everything learns, norms too
    fake_quantize(model, rule)
    assert_file_is_model(tmp_path / "out", model)


@pytest.mark.parametrize("has_preferences", [False, True])
def test_the_file_is_the_trained_model_with_its_adaptors(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_preferences: bool
) -> None:
    monkeypatch.setattr(RunFolder, "remove", lambda self: None)
    pairs = tiny / "pairs.jsonl" if has_preferences else None
    steps = trained(tiny, tmp_path / "out", method="qat-lora", preferences=pairs)
    stages = ["backbone", "adaptors", "preferences"][: 3 if has_preferences else 2]
    assert [stage for stage, _ in steps] == [stage for stage in stages for _ in range(6)]
    backbone, adaptors = (kept_state(tmp_path / "out", stage) for stage in stages[:2])
    assert len([name for name in adaptors if name.startswith("weight.")]) == 2 * 7 * 2  # and nothing else
    model = add_adaptors(load(str(tiny)))
    assert (model.config.lora_rank, model.config.lora_scale) == (16, 2.0)
    begun = {name: p.detach().clone() for name, p in model.named_parameters()}
    fill(model, backbone)
    fill(model, adaptors)
    after_adaptors = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert not any(torch.equal(begun[name], p) for name, p in after_adaptors.items())
    if has_preferences:
        fill(model, kept_state(tmp_path / "out", "preferences"))
        assert not any(torch.equal(after_adaptors[name], p) for name, p in model.named_parameters())
        losses = [step.loss for stage, step in steps if stage == "preferences"]
        assert losses[0] == pytest.approx(math.log(2), abs=1e-6)  # no answer has gained anything yet
        assert losses[-1] < 0.9 * losses[0]
    fake_quantize(model, "signed")
    written = open_checkpoint(tmp_path / "out")
    assert set(written.dtypes.values()) == {"int4_group32", "int8_channel", "bf16", "F32"}
    assert_file_is_model(tmp_path / "out", model)


def test_it_is_nearer_to_the_float_model_than_rounding_and_gptq(tiny: Path, tmp_path: Path) -> None:
    source, text = open_checkpoint(tiny), tiny / "text.txt"
    quantize(source, tmp_path / "ptq", Recipe(rule="signed"))
    gptq = Recipe(method="gptq", rule="search", sequences=32, length=128)
    quantize(source, tmp_path / "gptq", gptq, calibration=text)
    trained(tiny, tmp_path / "qat", length=128, backbone=settings(80, 3e-4))
    by_rounding, by_gptq, by_training = (divergence(tmp_path / n, tiny) for n in ("ptq", "gptq", "qat"))
    assert by_training < 0.85 * min(by_rounding, by_gptq), (by_rounding, by_gptq, by_training)


def test_a_quantized_model_is_where_training_begins(tiny: Path, start: Path, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "out", start=start, backbone=settings(1, 1e-9))
    begun, written = (pack_checkpoint(open_checkpoint(path)) for path in (start, tmp_path / "out"))
    assert begun.config == written.config
    for name, matrix in begun.matrices.items():
        assert np.array_equal(matrix.data, written.matrices[name].data), name


def test_the_file_is_the_model_that_went_on_from_a_start(
    tiny: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "remove", lambda self: None)
    trained(tiny, tmp_path / "out", start=start, backbone=settings(6, 0.2))
    source = open_checkpoint(start)
    model = from_checkpoint(source)
    before = {name: p.detach().clone() for name, p in keep_grid(model, source).items()}
    fill(model, kept_state(tmp_path / "out", "backbone"))
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(learned) == 2 * (7 * 2 + 2) + 1  # integers and scales of every matrix, and norms
    assert not any(torch.equal(before[name], p) for name, p in learned.items())
    assert_file_is_model(tmp_path / "out", model)


def test_going_on_from_a_start_brings_it_nearer(tiny: Path, start: Path, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "out", start=start, length=128, backbone=settings(24, 1e-2))
    begun, done = divergence(start, tiny), divergence(tmp_path / "out", tiny)
    assert done < 0.9 * begun, (begun, done)


def test_a_broken_off_run_goes_on_and_ends_with_the_same_file(tiny: Path, tmp_path: Path) -> None:
    steps = trained(tiny, tmp_path / "whole", loss="text", fake_quant_after=2)
    for stop in (2, 5):  # before rounding begins, and after
        with pytest.raises(KeyboardInterrupt):
            trained(tiny, tmp_path / "out", stop_after=stop, loss="text", fake_quant_after=2)
        assert not (tmp_path / "out").exists()
    rest = trained(tiny, tmp_path / "out", loss="text", fake_quant_after=2)
    assert [step.loss for _, step in rest] == [step.loss for _, step in steps[-len(rest) :]]
    assert 0 < len(rest) < 3
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_training_from_a_start_goes_on_after_a_break(tiny: Path, start: Path, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "whole", start=start, backbone=settings(6, 0.2))
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "out", start=start, stop_after=4, backbone=settings(6, 0.2))
    with pytest.raises(ConfigError, match="an unfinished run with another start; ask for the same"):
        trained(tiny, tmp_path / "out", backbone=settings(6, 0.2))
    rest = trained(tiny, tmp_path / "out", start=start, backbone=settings(6, 0.2))
    assert len(rest) == 3
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_every_stage_goes_on_after_a_break(tiny: Path, tmp_path: Path) -> None:
    changes = {"method": "qat-lora", "preferences": tiny / "pairs.jsonl"}
    steps = trained(tiny, tmp_path / "whole", **changes)
    told: list[tuple[str, Step]] = []
    for stop in (9, 7):  # in the midst of adaptors, and then of preferences
        with pytest.raises(KeyboardInterrupt):
            trained(tiny, tmp_path / "out", stop_after=stop, seen=told, **changes)
        assert not (tmp_path / "out").exists()
        told.pop()  # its weights were not saved: it comes again
    trained(tiny, tmp_path / "out", seen=told, **changes)
    assert [(stage, step.loss) for stage, step in told] == [(stage, step.loss) for stage, step in steps]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_adaptors_leave_the_backbone_as_it_is_and_bring_it_nearer(tiny: Path, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "qat", length=128)
    trained(tiny, tmp_path / "lora", method="qat-lora", length=128, adaptors=settings(20, 5e-3))
    plain, adapted = (pack_checkpoint(open_checkpoint(tmp_path / name)) for name in ("qat", "lora"))
    assert len(adapted.matrices) - len(plain.matrices) == 2 * 7 * 2
    for name, matrix in plain.matrices.items():
        assert np.array_equal(matrix.data, adapted.matrices[name].data), name
    assert divergence(tmp_path / "lora", tiny) < 0.9 * divergence(tmp_path / "qat", tiny)


def test_another_recipe_leaves_unfinished_work_alone(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "out", stop_after=2)
    with pytest.raises(ConfigError, match="an unfinished run with another recipe; ask for the same"):
        trained(tiny, tmp_path / "out", rule="range")


def test_rounding_begins_when_it_is_asked_to(tiny: Path, tmp_path: Path) -> None:
    changes = {"loss": "text", "backbone": settings(6)}
    late, early = (trained(tiny, tmp_path / f"{n}", fake_quant_after=n, **changes) for n in (3, 0))
    model, folder = load(str(tiny)), RunFolder(tmp_path / "float")
    folder.begin({})
    steps: list[Step] = []
    train(
        dict(model.named_parameters()),
        load_rows(tiny / "text.txt", open_checkpoint(tiny).vocabulary(), 40),
        lambda batch: cross_entropy(model, batch),
        settings(6),
        folder,
        progress=steps.append,
    )
    told, plain, rounded = ([s.loss for s in x] for x in ([s for _, s in late], steps, [s for _, s in early]))
    assert told[:3] == plain[:3]
    assert told[3] != plain[3]
    assert rounded[0] != plain[0]


def test_it_learns_what_the_assistant_says(tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", eos_token_id=[257, 259])  # the chat template ends a turn with the last of them
    said = [{"role": "user", "content": "Hum?"}, {"role": "assistant", "content": "Hmm."}]
    data = tmp_path / "chat.jsonl"
    data.write_text("\n".join(json.dumps({"messages": said}) for _ in range(20)))
    steps = trained(
        tmp_path / "in", tmp_path / "out", data=data, loss="text", held_out=1, backbone=settings(20, 1e-2)
    )
    assert steps[0][1].count == 8 * len("Hmm.|")  # rows of one conversation: its answer and the end
    assert steps[-1][1].loss < steps[0][1].loss / 3
    assert steps[-1][1].held_out == pytest.approx(steps[-1][1].loss, rel=0.5)


def test_what_cannot_be_is_refused_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    for wrong, needed in (
        ({"method": "qta"}, "method 'qta' is unknown"),
        ({"rule": "seek"}, "scale rule 'seek' is unknown"),
        ({"loss": "kl"}, "loss 'kl' is unknown"),
        ({"length": 1}, "`length` must be at least 2, got 1"),
        ({"rank": 0}, "`rank` must be at least 1, got 0"),
        ({"scale": 0.0}, "`scale` must be above 0 and finite, got 0.0"),
        ({"beta": math.inf}, "`beta` must be above 0 and finite, got inf"),
        ({"fake_quant_after": 1}, "is for the loss 'text'"),
        ({"loss": "text", "fake_quant_after": 200}, "must be under the 200 steps, got 200"),
    ):
        with pytest.raises(ConfigError, match=needed):
            QatRecipe(**wrong)
    (tmp_path / "in").mkdir()
    for path in tiny.iterdir():
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, tmp_path / "in" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight has a weight that is not"):
        trained(tmp_path / "in", tmp_path / "out")
    with pytest.raises(StoreError, match="exists already"):
        trained(tiny, tmp_path / "in")
    with pytest.raises(ConfigError, match=r"none\.txt"):
        trained(tiny, tmp_path / "out", data=tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"`length` must be at most 1024, the context of .*, got 1025; ask"):
        trained(tiny, tmp_path / "out", length=1025)
    with pytest.raises(ConfigError, match="preferences are for the method 'qat-lora', got 'qat'"):
        trained(tiny, tmp_path / "out", preferences=tiny / "pairs.jsonl")
    with pytest.raises(ConfigError, match=r"none\.jsonl has no data"):
        trained(tiny, tmp_path / "out", method="qat-lora", preferences=tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="`rank` must be from 1 to the model's width of 48, got 49"):
        trained(tiny, tmp_path / "out", method="qat-lora", rank=49)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_start_that_does_not_fit_is_refused(tiny: Path, start: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "narrow", tie_word_embeddings=True, intermediate_size=96)
    write_checkpoint(open_checkpoint(tiny), tmp_path / "int8", "int8")
    write_checkpoint(open_checkpoint(tmp_path / "narrow"), tmp_path / "other", "int4")
    same_shapes = {
        "heads": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 6},
        "eps": {"rms_norm_eps": 0.5},
        "theta": {"rope_theta": 123.0},
    }
    for name, changes in same_shapes.items():
        save_tiny(tmp_path / f"float-{name}", tie_word_embeddings=True, **changes)
        write_checkpoint(open_checkpoint(tmp_path / f"float-{name}"), tmp_path / name, "int4")
    for begin, changes, needed in (
        (start, {"method": "qat-lora"}, "is for the method 'qat', got 'qat-lora'"),
        (start, {"loss": "text", "fake_quant_after": 1}, "`fake_quant_after` must be 0"),
        (tmp_path / "int8", {}, "q_proj is not 4-bit in groups of 32; training begins with a model that"),
        (tiny, {}, "q_proj is not 4-bit in groups of 32"),
        (tmp_path / "other", {}, r"was not made from .*: `ffn_dim` is 96 there and 112 here"),
        (tmp_path / "heads", {}, r"was not made from .*: `n_heads` is 8 there and 4 here"),
        (tmp_path / "eps", {}, r"was not made from .*: `norm_eps` is 0\.5 there and 1e-0. here"),
        (tmp_path / "theta", {}, r"was not made from .*: `rope_frequencies` is \[1\.0, .* here"),
    ):
        with pytest.raises(ConfigError, match=needed):
            trained(tiny, tmp_path / "out", start=begin, **changes)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.training").exists()


def test_a_weight_that_is_no_number_is_found_in_the_teacher(tiny: Path, start: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "in")
    weights = load_file(tiny / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, tmp_path / "in" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"/in: .*layers\.1\.mlp\.up_proj\.weight has a weight that is"):
        trained(tmp_path / "in", tmp_path / "out", start=start)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_full_disk_is_found_out_before_the_first_step(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: used._replace(free=1000))
    with pytest.raises(StoreError, match=r"needs \d+ bytes more, the disk has 1000 free"):
        trained(tiny, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_memory_that_it_says_grows_with_what_is_asked() -> None:
    from puna.models.architectures import LLAMA32_1B

    gib = [
        memory_estimate(LLAMA32_1B, QatRecipe(loss=loss, length=length)) / (1 << 30)
        for loss, length in (("text", 512), ("distill", 512), ("distill", 2048))
    ]
    weights = 4 * LLAMA32_1B.n_parameters / (1 << 30)
    assert 5 * weights < gib[0] < gib[1] - weights
    assert gib[1] < gib[2] < 20 * weights
    from_start = memory_estimate(LLAMA32_1B, QatRecipe(), has_start=True) / (1 << 30)
    assert gib[1] - 0.9 * weights < from_start < gib[1] + weights  # its embedding does not learn
    long = [memory_estimate(LLAMA32_1B, QatRecipe(length=n)) for n in (4096, 8192)]
    # Weights do not grow with the rows, and the mask by the square: of 4 rows, in floats.
    assert long[1] - 2 * long[0] == 4 * 4 * (8192**2 - 2 * 4096**2) - 24 * LLAMA32_1B.n_parameters
    adapted = QatRecipe(method="qat-lora")
    assert memory_estimate(LLAMA32_1B, adapted) == memory_estimate(LLAMA32_1B, QatRecipe())
    with_pairs = memory_estimate(LLAMA32_1B, adapted, has_preferences=True)
    assert with_pairs > memory_estimate(LLAMA32_1B, adapted)  # twice as many rows, two answers of each pair
