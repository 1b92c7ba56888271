"""The layout of the official quantized models: what is read, what is written, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.meta_layout import meta_name, quantized_piece, write_meta
from tests.tiny import add_parts, save_tiny

from puna.engine.native import NativeEngine
from puna.errors import CheckpointError, StoreError
from puna.models.architectures import LLAMA32_1B_QLORA, LLAMA32_1B_SPINQUANT, LLAMA32_3B_QLORA
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.meta_quantized import MetaQuantizedCheckpoint
from puna.models.meta_writer import write_meta_quantized
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, write_checkpoint
from puna.nn.checkpoint import load
from puna.nn.fake_quantized import fake_quantize
from puna.nn.packed import ModelCheckpoint
from puna.tokens import Tokenizer

PARAMS = {
    "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 520, "multiple_of": 16,
    "ffn_dim_multiplier": 0.75, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
}  # fmt: skip
SCHEME = {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32}
SPINQUANT = PARAMS | {"quantization_args": SCHEME | {"spinquant": True}}
QLORA = PARAMS | {"quantization_args": SCHEME, "lora_args": {"rank": 16, "scale": 2.0}}
State = dict[str, torch.Tensor]


def config_of(params: dict[str, Any]) -> ModelConfig:
    return ModelConfig.from_meta(params, vocab_size=520, tied_embeddings=False)


def state_of(params: dict[str, Any], **options: Any) -> State:
    return quantized_piece(config_of(params), **options)


def half_split(rows: torch.Tensor, n_heads: int) -> torch.Tensor:
    """As the notes on the checkpoints have it: ``w.view(H, hd/2, 2, in).transpose(1, 2)``."""
    return rows.view(n_heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def values_of(state: State, stem: str, n_heads: int | None) -> torch.Tensor:
    q, scales = state[f"{stem}.weight"].float(), state[f"{stem}.scales"]
    if n_heads is not None:
        q, scales = half_split(q, n_heads), half_split(scales, n_heads)
    return q * scales.repeat_interleave(q.shape[1] // scales.shape[1], 1)


@pytest.mark.parametrize("params", [SPINQUANT, QLORA])
def test_every_tensor_is_the_files(params: dict[str, Any], tmp_path: Path) -> None:
    state = state_of(params)
    checkpoint = open_checkpoint(write_meta(tmp_path, [state], params))
    assert isinstance(checkpoint, MetaQuantizedCheckpoint)
    assert checkpoint.config == config_of(params)
    assert checkpoint.config.rope_scaling is not None
    assert checkpoint.config.rope_scaling.factor == 32
    assert checkpoint.config.max_seq_len == 8192
    assert list(checkpoint.dtypes) == list(checkpoint.config.tensor_shapes())
    heads = {"q_proj": 4, "k_proj": 2}
    for name in checkpoint.dtypes:
        n_heads = next((n for part, n in heads.items() if f"{part}." in name), None)
        if "lora" in name:
            stem = meta_name(name.replace(f".lora_{name[-8]}", "")).removesuffix(".weight")
            expected = state[f"{stem}.adaptor.{name[-8]}.weight"].float()
            if n_heads and "lora_B" in name:
                expected = half_split(expected, n_heads)
            assert checkpoint.dtypes[name] == "BF16"
        elif name.endswith("norm.weight"):
            expected = state[meta_name(name)].float()
        else:
            expected = values_of(state, meta_name(name).removesuffix(".weight"), n_heads)
        assert np.array_equal(checkpoint.tensor(name).to_float32(), expected.numpy()), name
    packed = pack_checkpoint(checkpoint)
    formats = {matrix.format for matrix in packed.matrices.values()}
    assert formats == {"int8_channel", "int4_group32_f32"} | ({"bf16"} if "lora_args" in params else set())
    for name, matrix in packed.matrices.items():
        assert np.array_equal(matrix.to_float32(), checkpoint.tensor(name).to_float32()), name
    # int4 is what it is already: nothing is rounded once more.
    again = pack_checkpoint(checkpoint, "int4")
    assert all(np.array_equal(m.data, packed.matrices[n].data) for n, m in again.matrices.items())


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_head_that_is_the_embedding_is_held_once(is_tied: bool, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_meta(tmp_path, [state_of(SPINQUANT, is_tied=is_tied)], SPINQUANT))
    assert checkpoint.config.tied_embeddings is is_tied
    assert ("lm_head.weight" in checkpoint.dtypes) is not is_tied


def test_tables_that_differ_in_a_scale_are_two(tmp_path: Path) -> None:
    state = state_of(SPINQUANT, is_tied=True)
    state["output.scales"][7] *= 2
    checkpoint = open_checkpoint(write_meta(tmp_path, [state], SPINQUANT))
    assert checkpoint.config.tied_embeddings is False


def test_the_variations_that_readers_of_the_layout_accept(tmp_path: Path) -> None:
    plain = state_of(SPINQUANT)
    state = state_of(SPINQUANT, has_zeros=True)
    state["rope.freqs"] = torch.ones(8)
    for name in list(state):
        if name.endswith("norm.weight"):
            state[name] = state[name].float()
    for table in ("tok_embeddings", "output"):
        state[f"{table}.scales"] = state[f"{table}.scales"].reshape(-1)
    nested: Any = {"model": {k: v for k, v in SPINQUANT.items() if k != "quantization_args"}}
    nested["quantization_args"] = SPINQUANT["quantization_args"]
    one = open_checkpoint(write_meta(tmp_path / "a", [plain], SPINQUANT))
    for folder, piece in (("b", state), ("c", {"model": state})):
        other = open_checkpoint(write_meta(tmp_path / folder, [piece], nested))  # type: ignore[list-item]
        assert other.config == one.config
        for name in one.dtypes:
            assert np.array_equal(other.tensor(name).to_float32(), one.tensor(name).to_float32())


def changed(**tensors: torch.Tensor) -> Callable[[State, dict[str, Any]], None]:
    return lambda state, params: state.update({k.replace("__", "."): v for k, v in tensors.items()})


def setting(**changes: Any) -> Callable[[State, dict[str, Any]], None]:
    def change(state: State, params: dict[str, Any]) -> None:
        params["quantization_args"] = params["quantization_args"] | changes

    return change


BAD: dict[str, tuple[Callable[[State, dict[str, Any]], Any], str]] = {
    "another scheme": (setting(scheme="fp8"), "`scheme` of `quantization_args` must be 'int4_weight_int8"),
    "another group": (setting(group_size=256), "`group_size` of `quantization_args` must be 32, got 256"),
    "a setting more": (setting(bits=3), "unknown keys ['bits'] in `quantization_args` or `lora_args`"),
    "a rotation maybe": (setting(spinquant=1), "`has_down_rotation` must be true or false, got 1"),
    "a rotation of no power of two": (
        lambda s, p: p.update(quantization_args=SCHEME | {"spinquant": True}, ffn_dim_multiplier=0.5),
        "`spinquant` needs a feed-forward width that is a power of two, as other readers of this layout "
        "rotate it whole, got 96",
    ),
    "settings a list": (lambda s, p: p.update(quantization_args=[]), "must be an object, got []"),
    "no settings": (lambda s, p: p.pop("quantization_args"), "`scheme` of `quantization_args` must be"),
    "a rank of text": (lambda s, p: p.update(lora_args={"rank": "16"}), "`rank` must be a whole number"),
    "no scale": (lambda s, p: p.update(lora_args={"rank": 16}), "`scale` must be a number, got None"),
    "another rank": (
        lambda s, p: p.update(lora_args={"rank": 8, "scale": 2.0}),
        "`layers.0.attention.wq.adaptor.A.weight` needs BF16 or F32 or F16 of shape (8, 64), got BF16",
    ),
    "no adaptors": (
        lambda s, p: p.pop("lora_args"),
        "28 tensors belong to no part of this model, the first is 'layers.0.attention.wk.adaptor.A.weight'",
    ),
    "no embedding": (lambda s, p: s.pop("tok_embeddings.weight"), "no tensor `tok_embeddings.weight`"),
    "no head": (lambda s, p: s.pop("output.weight"), "has no tensor `output.weight`; the download may"),
    "no scales": (lambda s, p: s.pop("output.scales"), "has no tensor `output.scales`"),
    "an embedding of one axis": (
        changed(tok_embeddings__weight=torch.zeros(520, dtype=torch.int8)),
        "needs a matrix `tok_embeddings.weight`, got shape (520,)",
    ),
    "weights of floats": (
        changed(layers__1__attention__wo__weight=torch.zeros(64, 64)),
        "`layers.1.attention.wo.weight` needs I8 of shape (64, 64), got F32 of shape (64, 64)",
    ),
    "scales of halves": (
        changed(layers__1__attention__wo__scales=torch.zeros(64, 2).half()),
        "`layers.1.attention.wo.scales` needs F32 of shape (64, 2), got F16",
    ),
    "scales of a wider group": (
        changed(layers__1__attention__wo__scales=torch.zeros(64, 1)),
        "needs F32 of shape (64, 2), got F32 of shape (64, 1)",
    ),
    "table scales of groups": (
        changed(output__scales=torch.zeros(520, 2)),
        "`output.scales` needs F32 of shape (520, 1) or (520,), got F32 of shape (520, 2)",
    ),
    "another width": (lambda s, p: p.update(ffn_dim_multiplier=1.0), "needs I8 of shape (176, 64)"),
    "rows that are one row again and again": (
        lambda s, p: s.update(
            {"layers.0.attention.wo.weight": torch.zeros(1, 64, dtype=torch.int8).expand(64, 64)}
        ),
        "'layers.0.attention.wo.weight' of shape (64, 64), steps (0, 1) and offset 0 does not fit its "
        "storage of 64 elements",
    ),
    "a pickle that calls": (
        lambda s, p: s.update(note=Path("/")),  # type: ignore[arg-type]
        "pathlib",
    ),
    "a rank beyond all": (
        lambda s, p: p.update(lora_args={"rank": 2**40, "scale": 2.0}),
        "`lora_rank` must be",
    ),
    "no number as a scale": (
        lambda s, p: p.update(lora_args={"rank": 16, "scale": float("inf")}),
        "must be",
    ),
    "layers beyond all": (lambda s, p: p.update(n_layers=2**40), "`n_layers` must be"),
    "an empty table": (
        changed(tok_embeddings__weight=torch.zeros(0, 64, dtype=torch.int8)),
        "must be",
    ),
    "a tensor more": (changed(extra=torch.zeros(1)), "1 tensors belong to no part of this model"),
    "vision": (lambda s, p: p.update(vision_chunk_size=1), "this is a model with vision"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_no_whole_model(case: str, tmp_path: Path) -> None:
    damage, words = BAD[case]
    state, params = state_of(QLORA), json.loads(json.dumps(QLORA))
    damage(state, params)
    with pytest.raises(CheckpointError) as caught:
        MetaQuantizedCheckpoint(write_meta(tmp_path, [state], params))
    assert words in str(caught.value)


BAD_VALUES: dict[str, tuple[Callable[[State], Any], str]] = {
    "five bits": (
        lambda s: s["layers.0.attention.wq.weight"].view(-1)[5].fill_(8),
        "`layers.0.attention.wq.weight`: int4 weights must be -8 to 7, got 8",
    ),
    "a scale of NaN": (
        lambda s: s["layers.0.attention.wq.scales"].view(-1)[5].fill_(float("nan")),
        "`layers.0.attention.wq.scales` has a number that is not finite",
    ),
    "a zero point": (
        lambda s: s["layers.0.attention.wq.zeros"].view(-1)[5].fill_(1),
        "`layers.0.attention.wq.zeros` must be zero throughout",
    ),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_values_that_the_scheme_does_not_have(case: str, tmp_path: Path) -> None:
    damage, words = BAD_VALUES[case]
    state = state_of(SPINQUANT, has_zeros=True)
    damage(state)
    checkpoint = open_checkpoint(write_meta(tmp_path, [state], SPINQUANT))
    with pytest.raises(CheckpointError) as caught:
        pack_checkpoint(checkpoint)
    assert words in str(caught.value)


def test_groups_that_do_not_divide_a_matrix(tmp_path: Path) -> None:
    params = QLORA | {"multiple_of": 8, "ffn_dim_multiplier": 0.4}
    state = state_of(params)
    with pytest.raises(CheckpointError, match=r"w2` needs inputs in groups of 32, got 72 inputs"):
        MetaQuantizedCheckpoint(write_meta(tmp_path, [state], params))


def test_two_files_are_not_of_this_layout(tmp_path: Path) -> None:
    state = state_of(SPINQUANT)
    with pytest.raises(CheckpointError, match=r"needs one consolidated\.00\.pth, .* got 2 files"):
        MetaQuantizedCheckpoint(write_meta(tmp_path, [state, state], SPINQUANT))


AS_META = {"hidden_size": 64, "max_position_embeddings": 8192, "intermediate_size": 128,
           "rms_norm_eps": 1e-5, "rope_theta": 500000.0}  # fmt: skip
ADDED: dict[str, dict[str, Any]] = {
    "plain": {},
    "spinquant": {"has_down_rotation": True},
    "qlora": {"lora_rank": 16, "lora_scale": 2.0},
    "both": {"has_down_rotation": True, "lora_rank": 16, "lora_scale": 2.0},
}


def int4_model(folder: Path, added: dict[str, Any], *, is_tied: bool = False, **changes: Any) -> Checkpoint:
    """A Puna checkpoint in the scheme."""
    save_tiny(folder / "in", tie_word_embeddings=is_tied, **(AS_META | changes))
    model = load(str(folder / "in"))
    model = add_parts(model, **added) if added else model
    fake_quantize(model)
    vocabulary = open_checkpoint(folder / "in").vocabulary()
    write_checkpoint(ModelCheckpoint(model, vocabulary), folder / "int4", "auto")
    return open_checkpoint(folder / "int4")


def logits_of(checkpoint: Checkpoint) -> np.ndarray:
    engine = NativeEngine(pack_checkpoint(checkpoint), Tokenizer(checkpoint.vocabulary()))
    logits = np.array(engine.logits(list(range(50))))
    engine.close()
    return logits


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("kind", ADDED)
def test_a_round_trip_keeps_every_bit(kind: str, is_tied: bool, tmp_path: Path) -> None:
    source = int4_model(tmp_path, ADDED[kind], is_tied=is_tied)
    told: list[tuple[int, int]] = []
    write_meta_quantized(source, tmp_path / "out", progress=lambda *step: told.append(step))
    written = open_checkpoint(tmp_path / "out")
    assert isinstance(written, MetaQuantizedCheckpoint)
    assert written.config == source.config
    assert np.array_equal(logits_of(written), logits_of(source))
    assert told == [(i + 1, len(told)) for i in range(len(told))]
    # And once more, from the layout itself.
    write_meta_quantized(written, tmp_path / "again")
    one, two = ((tmp_path / name / "consolidated.00.pth").read_bytes() for name in ("out", "again"))
    assert one == two


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_matrix_before_the_head_becomes_part_of_it(is_tied: bool, tmp_path: Path) -> None:
    source = int4_model(tmp_path, {"has_output_rotation": True}, is_tied=is_tied)
    write_meta_quantized(source, tmp_path / "out")
    written = open_checkpoint(tmp_path / "out")
    assert written.config == replace(source.config, has_output_rotation=False, tied_embeddings=False)
    table = "model.embed_tokens.weight" if is_tied else "lm_head.weight"
    rotation = source.tensor("model.norm.rotation.weight").to_float32().astype(np.float64)
    assert np.abs(rotation - np.eye(len(rotation))).max() > 0.1
    exact = source.tensor(table).to_float32().astype(np.float64) @ rotation
    head = written.tensor("lm_head.weight").to_float32()
    steps = np.abs(exact).max(1, keepdims=True) / 127
    assert (np.abs(head - exact) <= 0.51 * steps).all()
    ours, theirs = logits_of(written), logits_of(source)
    assert np.abs(ours - theirs).mean() < 0.03 * np.abs(theirs).mean()
    others = [name for name in source.dtypes if name not in ("model.norm.rotation.weight", "lm_head.weight")]
    for name in others:
        assert np.array_equal(written.tensor(name).to_float32(), source.tensor(name).to_float32()), name


@pytest.mark.parametrize("kind", ADDED)
def test_keys_shapes_and_types_are_the_layouts(kind: str, tmp_path: Path) -> None:
    source = int4_model(tmp_path, ADDED[kind])
    write_meta_quantized(source, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "consolidated.00.pth", weights_only=True)
    expected = quantized_piece(source.config)
    norms = {name: tensor.float() for name, tensor in expected.items() if name.endswith("norm.weight")}
    expected |= norms  # those of this model are no bfloat16 numbers
    assert {k: (v.dtype, v.shape) for k, v in state.items()} == {
        k: (v.dtype, v.shape) for k, v in expected.items()
    }
    for name, tensor in state.items():
        if tensor.dtype == torch.int8 and not name.startswith(("tok_embeddings", "output")):
            assert -8 <= int(tensor.min()) < int(tensor.max()) <= 7


def test_norms_that_are_bfloat16_numbers_are_written_as_such(tmp_path: Path) -> None:
    params = QLORA
    source = open_checkpoint(write_meta(tmp_path / "in", [state_of(params)], params))
    write_meta_quantized(source, tmp_path / "out", tokenizer_model=tmp_path / "in" / "tokenizer.model")
    state = torch.load(tmp_path / "out" / "consolidated.00.pth", weights_only=True)
    expected = state_of(params)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name
    assert json.loads((tmp_path / "out" / "params.json").read_text())["quantization_args"] == SCHEME
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["consolidated.00.pth", "params.json", "tokenizer.model"]


def test_llama_3s_vocabulary_is_written_as_its_own_file(tmp_path: Path) -> None:
    source = open_checkpoint(write_meta(tmp_path / "in", [state_of(SPINQUANT)], SPINQUANT))
    write_checkpoint(source, tmp_path / "puna", "auto")
    write_meta_quantized(open_checkpoint(tmp_path / "puna"), tmp_path / "out")
    written = (tmp_path / "out" / "tokenizer.model").read_bytes()
    assert written == (tmp_path / "in" / "tokenizer.model").read_bytes()
    assert not (tmp_path / "out" / "tokenizer.json").exists()


@pytest.mark.parametrize("config", [LLAMA32_1B_SPINQUANT, LLAMA32_1B_QLORA, LLAMA32_3B_QLORA])
def test_params_json_of_the_published_models_comes_back(config: ModelConfig) -> None:
    raw = config.to_meta(is_quantized=True)
    assert ModelConfig.from_meta(raw, vocab_size=config.vocab_size, tied_embeddings=True) == config
    long = replace(config, max_seq_len=131_072)
    assert long.to_meta(is_quantized=True) == raw
    with pytest.raises(CheckpointError, match="cannot say"):
        config.to_meta()


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a rotation in blocks": (
        {"has_down_rotation": True}, {"intermediate_size": 96},
        "rotates its feed-forward width of 96 in blocks of 32",
    ),
    "a ragged group": (
        {}, {"intermediate_size": 112}, "down_proj.weight needs inputs in whole groups of 32",
    ),
    "another width of heads": ({}, {"head_dim": 32}, "cannot say `head_dim` 32"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_layout_has_no_place_for(case: str, tmp_path: Path) -> None:
    added, changes, words = REFUSED[case]
    source = int4_model(tmp_path, added, **changes)
    with pytest.raises(CheckpointError) as caught:
        write_meta_quantized(source, tmp_path / "out")
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_models_in_other_formats_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", **AS_META)
    source = open_checkpoint(tmp_path / "in")
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight needs to be int8_channel .* got F32"):
        write_meta_quantized(source, tmp_path / "out")
    write_checkpoint(source, tmp_path / "int8", "int8")
    with pytest.raises(CheckpointError, match=r"needs to be int8_channel .* got int8_group32; make it with"):
        write_meta_quantized(open_checkpoint(tmp_path / "int8"), tmp_path / "out")
    write_checkpoint(source, tmp_path / "int4", "int4")
    int4 = open_checkpoint(tmp_path / "int4")
    with pytest.raises(CheckpointError, match=r"does not exist; give the tokenizer\.model"):
        write_meta_quantized(int4, tmp_path / "out", tokenizer_model=tmp_path / "none")
    with pytest.raises(StoreError, match="exists already"):
        write_meta_quantized(int4, tmp_path / "in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "int4", "int8"]
