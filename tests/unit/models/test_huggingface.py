from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from puna.errors import CheckpointError
from puna.models.config import ModelConfig
from puna.models.files import parse_json_object
from puna.models.huggingface import HuggingFaceCheckpoint, read_vocabulary


def edit(folder: Path, name: str, **changes: Any) -> None:
    contents = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    contents.update(changes)
    (folder / name).write_text(json.dumps({k: v for k, v in contents.items() if v is not ...}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["10GB", "40KB"])
def test_all_tensors_of_a_model_saved_by_transformers(
    tmp_path: Path, small_config: ModelConfig, dtype: torch.dtype, tied: bool, shard: str
) -> None:
    raw = {**small_config.to_hf(), "tie_word_embeddings": tied}
    model = LlamaForCausalLM(LlamaConfig(**raw)).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "10GB")

    checkpoint = HuggingFaceCheckpoint(tmp_path)
    assert checkpoint.config.tied_embeddings is tied
    assert list(checkpoint.dtypes) == list(checkpoint.config.tensor_shapes())
    state = model.state_dict()
    if tied:
        del state["lm_head.weight"]
    assert checkpoint.dtypes.keys() == state.keys()
    word = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    for name, expected in state.items():
        tensor = checkpoint.tensor(name)
        assert (tensor.dtype, tensor.shape) == (word, tuple(expected.shape))
        np.testing.assert_array_equal(tensor.to_float32(), expected.float().numpy(), err_msg=name)


def save_bin(folder: Path, state: dict[str, torch.Tensor], n_files: int) -> None:
    """As transformers wrote it before safetensors."""
    if n_files == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    weight_map = {}
    for number in range(n_files):
        name = f"pytorch_model-{number + 1:05d}-of-{n_files:05d}.bin"
        part = dict(list(state.items())[number::n_files])
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_files", [1, 3])
def test_all_tensors_of_pytorch_files(
    tmp_path: Path, small_config: ModelConfig, dtype: torch.dtype, n_files: int
) -> None:
    model = LlamaForCausalLM(LlamaConfig(**small_config.to_hf())).to(dtype)
    (tmp_path / "config.json").write_text(json.dumps(small_config.to_hf()))
    save_bin(tmp_path, dict(model.state_dict()), n_files)
    checkpoint = HuggingFaceCheckpoint(tmp_path)
    assert list(checkpoint.dtypes) == list(small_config.tensor_shapes())
    for name, expected in model.state_dict().items():
        np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), expected.float().numpy())


def test_safetensors_go_before_pytorch_files(hf_folder: Path) -> None:
    (hf_folder / "pytorch_model.bin").write_bytes(b"not looked at")
    assert HuggingFaceCheckpoint(hf_folder).dtypes["lm_head.weight"] == "F32"


def test_shards_may_be_links_of_the_users_own(
    hf_folder: Path, tmp_path: Path, weights: dict[str, NDArray[np.float32]]
) -> None:
    """Hugging Face's cache keeps a folder of links to files that lie elsewhere."""
    (hf_folder / "model.safetensors").rename(tmp_path / "blob")
    (hf_folder / "model.safetensors").symlink_to(tmp_path / "blob")
    _index(hf_folder, dict.fromkeys(weights, "model.safetensors"))
    assert HuggingFaceCheckpoint(hf_folder).dtypes.keys() == weights.keys()


def test_code_of_the_model_is_not_run(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hf_folder / "modeling_evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(hf_folder)
    edit(hf_folder, "config.json", auto_map={"AutoModel": "modeling_evil.Evil"})
    edit(hf_folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_evil.Evil", None]})
    HuggingFaceCheckpoint(hf_folder).vocabulary()
    assert "modeling_evil" not in sys.modules


def test_transformers_loads_the_config_that_is_read(hf_folder: Path, small_config: ModelConfig) -> None:
    assert HuggingFaceCheckpoint(hf_folder).config == small_config


def test_a_tied_head_that_is_stored_is_ignored(hf_folder: Path) -> None:
    edit(hf_folder, "config.json", tie_word_embeddings=True)
    checkpoint = HuggingFaceCheckpoint(hf_folder)
    assert "lm_head.weight" not in checkpoint.dtypes
    with pytest.raises(CheckpointError, match=r"has no tensor 'lm_head\.weight'"):
        checkpoint.tensor("lm_head.weight")


def test_old_rotary_tables_are_ignored(hf_folder: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    save_file(weights | table, hf_folder / "model.safetensors")
    assert HuggingFaceCheckpoint(hf_folder).dtypes.keys() == weights.keys()


def test_vocabulary(hf_folder: Path) -> None:
    vocabulary = HuggingFaceCheckpoint(hf_folder).vocabulary()
    file = json.loads((hf_folder / "tokenizer.json").read_text())
    assert json.loads(vocabulary.tokenizer_json.to_bytes()) == file
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (0, (1, 2), True)
    assert vocabulary.chat_template == "{{ messages }}"
    assert vocabulary.special_tokens == {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def test_vocabulary_of_a_bare_tokenizer(hf_folder: Path) -> None:
    for name in ("tokenizer_config.json", "generation_config.json"):
        (hf_folder / name).unlink()
    edit(hf_folder, "tokenizer.json", post_processor=None)
    vocabulary = read_vocabulary(hf_folder, 40)
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (0, (1,), False)
    assert (vocabulary.chat_template, vocabulary.special_tokens) == (None, {})


@pytest.mark.parametrize(
    ("explicit", "template", "expected"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_add_bos(hf_folder: Path, explicit: bool | None, template: bool, expected: bool) -> None:
    if not template:
        edit(hf_folder, "tokenizer.json", post_processor={"type": "ByteLevel"})
    edit(hf_folder, "tokenizer_config.json", add_bos_token=explicit)
    assert read_vocabulary(hf_folder, 40).add_bos is expected


def test_a_template_with_another_first_token_adds_no_bos(hf_folder: Path) -> None:
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    edit(hf_folder, "tokenizer.json", post_processor={"type": "TemplateProcessing", "single": single})
    assert read_vocabulary(hf_folder, 40).add_bos is False


@pytest.mark.parametrize(
    ("setting", "file", "expected"),
    [
        ("in settings", None, "in settings"),
        ("in settings", "in its file", "in its file"),
        ([{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}], None, "d"),
        ([{"name": "tools", "template": "t"}], None, None),
        ([{"name": {}, "template": "t"}, 7, {"name": "default", "template": "d"}], None, "d"),
        (None, None, None),
    ],
)
def test_chat_template(hf_folder: Path, setting: Any, file: str | None, expected: str | None) -> None:
    edit(hf_folder, "tokenizer_config.json", chat_template=setting)
    if file:
        (hf_folder / "chat_template.jinja").write_text(file)
    assert read_vocabulary(hf_folder, 40).chat_template == expected


BAD_VOCABULARY: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "a damaged tokenizer.model": (
        lambda f: ((f / "tokenizer.json").unlink(), (f / "tokenizer.model").write_bytes(b"IQ== 1\n")),
        "line 1 must be base64, a space and the rank 0, got 'IQ== 1'",
    ),
    "end token out of range": (
        lambda f: edit(f, "generation_config.json", eos_token_id=40),
        "`eos_token_id` must be a token id under 40, got 40",
    ),
    "end token of text": (lambda f: edit(f, "config.json", eos_token_id="1"), "under 40, got '1'"),
    "end tokens in a list in a list": (
        lambda f: edit(f, "config.json", eos_token_id=[[1]]),
        "under 40, got [1]",
    ),
    "end token null": (
        lambda f: edit(f, "generation_config.json", eos_token_id=[None]),
        "under 40, got None",
    ),
    "first token negative": (
        lambda f: (edit(f, "config.json", bos_token_id=-1), (f / "tokenizer_config.json").unlink()),
        "`bos_token_id` must be a token id under 40, got -1",
    ),
    "first token without id": (
        lambda f: edit(f, "tokenizer.json", added_tokens=[{"content": "<|begin_of_text|>", "id": "x"}]),
        "`bos_token_id` must be a token id under 40, got 'x'",
    ),
    "added tokens a number": (
        lambda f: edit(f, "tokenizer.json", added_tokens=7),
        "must be a list of objects",
    ),
    "template a number": (lambda f: edit(f, "tokenizer_config.json", chat_template=7), "must be text, got 7"),
    "settings a list": (
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
        "needs a JSON object, got list",
    ),
    "settings nested": (
        lambda f: (f / "tokenizer_config.json").write_text("[" * 200_000),
        "may be nested 64 deep, it is deeper",
    ),
    "tokenizer a pointer": (
        lambda f: (f / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1"),
        "is a Git LFS pointer",
    ),
    "key twice": (
        lambda f: (f / "tokenizer.json").write_text('{"a": 1, "a": 2}'),
        "the key 'a' is given twice",
    ),
}


@pytest.mark.parametrize("case", BAD_VOCABULARY)
def test_damaged_vocabulary(hf_folder: Path, case: str) -> None:
    damage, words = BAD_VOCABULARY[case]
    damage(hf_folder)
    with pytest.raises(CheckpointError) as caught:
        read_vocabulary(hf_folder, 40)
    assert words in str(caught.value)
    assert str(hf_folder) in str(caught.value)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_may_be_nested_64_deep(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth, is_read in ((63, True), (64, False)):  # and the object around it
        text = '{"b": ' + opening * depth + ("" if opening == "[" else "1") + closing * depth + "}"
        if is_read:
            assert parse_json_object(text, "here").keys() == {"b"}
        else:
            with pytest.raises(CheckpointError, match="here: the JSON may be nested 64 deep, it is deeper"):
                parse_json_object(text, "here")


@pytest.mark.parametrize(
    "key", ["hidden_size", "rope_scaling", "rope_theta", "tie_word_embeddings", "new" * 999]
)
@pytest.mark.parametrize("value", ["a" * 99_999, [0] * 99_999, int("9" * 4000)])
def test_messages_about_huge_values_are_short(hf_folder: Path, key: str, value: Any) -> None:
    edit(hf_folder, "config.json", **{key: value})
    with pytest.raises(CheckpointError) as caught:
        HuggingFaceCheckpoint(hf_folder)
    assert len(str(caught.value)) < 400


def _index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    rng = np.random.default_rng(1)
    shapes = ModelConfig.from_hf(json.loads((folder / "config.json").read_text())).tensor_shapes()
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _bin_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _bin(folder: Path, dtype: torch.dtype) -> None:
    (folder / "model.safetensors").unlink()
    shapes = ModelConfig.from_hf(json.loads((folder / "config.json").read_text())).tensor_shapes()
    torch.save({n: torch.ones(s, dtype=dtype) for n, s in shapes.items()}, folder / "pytorch_model.bin")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json cannot be read: No such file"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "neither model.safetensors or model.safetensors.index.json nor",
    ),
    "a config too large": (
        lambda f: (f / "config.json").write_bytes(b" " * (64 * 1024 * 1024 + 1)),
        "needs at most 67108864 bytes",
    ),
    "a config not UTF-8": (
        lambda f: (f / "config.json").write_bytes(b"{\xff}"),
        "needs UTF-8 text, got byte 0xff",
    ),
    "a value nested too deep to print": (
        lambda f: (f / "config.json").write_text('{"model_type": ' + "[" * 970 + "]" * 970 + "}"),
        "the JSON may be nested 64 deep, it is deeper",
    ),
    "another architecture": (
        lambda f: edit(f, "config.json", model_type="gpt2"),
        "must be 'llama', got 'gpt2'",
    ),
    "a missing tensor": (
        lambda f: _tensors(f, lambda t: t.pop("model.norm.weight")),
        "1 tensors are missing, the first is 'model.norm.weight'",
    ),
    "a tensor too many": (
        lambda f: _tensors(f, lambda t: t.update(extra=np.ones(1, np.float32))),
        "the first is 'extra'",
    ),
    "a wrong shape": (
        lambda f: _tensors(f, lambda t: t.update({"model.norm.weight": np.ones((64, 1), np.float32)})),
        "tensor 'model.norm.weight' needs shape (64,), got (64, 1)",
    ),
    "a wrong type": (
        lambda f: _tensors(f, lambda t: t.update({"model.norm.weight": np.ones(64, np.int32)})),
        "must be stored as F32, F16, BF16, got I32",
    ),
    "an index of nothing": (lambda f: _index(f, None), "needs an object `weight_map`, got None"),
    "a path upwards": (lambda f: _index(f, {"a": "../model.safetensors"}), "got '../model.safetensors'"),
    "an absolute path": (lambda f: _index(f, {"a": "/model.safetensors"}), "got '/model.safetensors'"),
    "a path with backslashes": (lambda f: _index(f, {"a": "..\\m.safetensors"}), "beside it, got"),
    "a name with a NUL": (lambda f: _index(f, {"a": "a\0.safetensors"}), "beside it, got"),
    "a pickle in the index": (lambda f: _index(f, {"a": "model.bin"}), "beside it, got 'model.bin'"),
    "safetensors in an index of pickles": (
        lambda f: _bin_index(f, {"a": "model.safetensors"}),
        "needs names of .bin files beside it, got 'model.safetensors'",
    ),
    "a pickle in another folder": (
        lambda f: _bin_index(f, {"a": "/etc/x.bin"}),
        "beside it, got '/etc/x.bin'",
    ),
    "a hidden pickle": (lambda f: _bin_index(f, {"a": "..bin"}), "beside it, got '..bin'"),
    "pickles that are not there": (lambda f: _bin_index(f, {"a": "b.bin"}), "b.bin cannot be read"),
    "no file in the index": (lambda f: _index(f, {}), "21 tensors are missing"),
    "a pickle of doubles": (
        lambda f: _bin(f, torch.float64),
        "pytorch_model.bin: tensor 'model.embed_tokens.weight' must be stored as F32, F16, BF16, got F64",
    ),
    "a number in the index": (lambda f: _index(f, {"a": 1}), "beside it, got 1"),
    "a shard that is not there": (
        lambda f: _index(f, {"a": "b.safetensors"}),
        "b.safetensors cannot be read",
    ),
    "an index that lists too little": (
        lambda f: _index(f, {"model.norm.weight": "model.safetensors"}),
        "do not agree on where 20 tensors are, the first is 'lm_head.weight' in model.safetensors",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_folders_that_are_no_whole_llama(hf_folder: Path, case: str) -> None:
    damage, words = BAD_FOLDERS[case]
    damage(hf_folder)
    with pytest.raises(CheckpointError) as caught:
        HuggingFaceCheckpoint(hf_folder)
    assert words in str(caught.value)
