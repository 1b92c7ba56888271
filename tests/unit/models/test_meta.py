from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.fuzz import fuzz_tokenizer_model
from tests.meta_layout import interleaved, meta_pieces, write_meta

from puna.errors import CheckpointError
from puna.models.config import ModelConfig
from puna.models.meta import MetaCheckpoint
from puna.models.open import open_checkpoint
from puna.tokens import Tokenizer

PARAMS = {
    "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 40, "multiple_of": 16,
    "ffn_dim_multiplier": 0.5, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
}  # fmt: skip
Weights = dict[str, torch.Tensor]


@pytest.fixture
def tensors(weights: dict[str, NDArray[np.float32]]) -> Weights:
    return {name: torch.from_numpy(weight) for name, weight in weights.items()}


def pieces_of(tensors: Weights, n_files: int = 1, **options: Any) -> list[Weights]:
    return meta_pieces(tensors, 4, 2, n_files, **options)


def assert_equal(checkpoint: Any, tensors: Weights) -> None:
    assert list(checkpoint.dtypes) == list(tensors)
    for name, expected in tensors.items():
        tensor = checkpoint.tensor(name)
        assert tensor.shape == tuple(expected.shape)
        assert tensor.data.shape[:-1] == tensor.shape[:-1]
        assert not tensor.data.flags.writeable
        np.testing.assert_array_equal(tensor.to_float32(), expected.float().numpy(), err_msg=name)


@pytest.mark.parametrize("n_files", [1, 2, 4])
@pytest.mark.parametrize("llama2", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_tensors(
    tmp_path: Path, tensors: Weights, n_files: int, llama2: bool, dtype: torch.dtype
) -> None:
    stored = {name: weight.to(dtype) for name, weight in tensors.items()}
    checkpoint = open_checkpoint(write_meta(tmp_path, pieces_of(stored, n_files, llama2=llama2), PARAMS))
    assert (checkpoint.kind, checkpoint.path) == ("Meta", tmp_path)
    word = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert set(checkpoint.dtypes.values()) == {word}
    assert_equal(checkpoint, stored)


def test_config(tmp_path: Path, tensors: Weights) -> None:
    config = MetaCheckpoint(write_meta(tmp_path, pieces_of(tensors), PARAMS)).config
    assert config == ModelConfig.from_meta(PARAMS, vocab_size=40, tied_embeddings=False)
    assert config.ffn_dim == 96


@pytest.mark.parametrize("llama2", [False, True])
def test_the_vocabulary_size_of_llama_2_is_the_embeddings(
    tmp_path: Path, tensors: Weights, llama2: bool
) -> None:
    params = PARAMS | {"vocab_size": -1}
    checkpoint = MetaCheckpoint(write_meta(tmp_path, pieces_of(tensors, 2, llama2=llama2), params))
    assert checkpoint.config.vocab_size == 40


@pytest.mark.parametrize("n_files", [1, 2])
@pytest.mark.parametrize("is_stored", [False, True])
def test_a_head_that_is_the_embedding(
    tmp_path: Path, tensors: Weights, is_stored: bool, n_files: int
) -> None:
    embedding = tensors["model.embed_tokens.weight"]
    head = tensors.pop("lm_head.weight")
    stored = tensors | ({"lm_head.weight": embedding.clone()} if is_stored else {})
    checkpoint = MetaCheckpoint(write_meta(tmp_path / "tied", pieces_of(stored, n_files), PARAMS))
    assert checkpoint.config.tied_embeddings is True
    assert_equal(checkpoint, tensors)
    with pytest.raises(CheckpointError, match=r"has no tensor 'lm_head\.weight'"):
        checkpoint.tensor("lm_head.weight")

    almost = tensors | {"lm_head.weight": embedding.clone()}
    almost["lm_head.weight"][-1, -1] = head[-1, -1]
    checkpoint = MetaCheckpoint(write_meta(tmp_path / "apart", pieces_of(almost, n_files), PARAMS))
    assert checkpoint.config.tied_embeddings is False
    assert_equal(checkpoint, almost)


def test_settings_and_tensors_under_model(tmp_path: Path, tensors: Weights) -> None:
    pieces: Any = [{"model": piece} for piece in pieces_of(tensors)]
    assert_equal(MetaCheckpoint(write_meta(tmp_path, pieces, {"model": PARAMS})), tensors)


def test_rows_of_q_are_those_of_transformers(tensors: Weights) -> None:
    """The order that the test writes is that of the conversion script of transformers, turned round."""
    weight = tensors["model.layers.0.self_attn.q_proj.weight"]
    theirs = interleaved(weight, 4).view(4, 8, 2, 64).transpose(1, 2).reshape(64, 64)
    assert torch.equal(theirs, weight)


@pytest.fixture
def wide_tensors() -> Weights:
    config = ModelConfig.from_meta(PARAMS | {"vocab_size": -1}, vocab_size=512, tied_embeddings=False)
    return {name: torch.ones(shape) for name, shape in config.tensor_shapes().items()}


@pytest.mark.parametrize("is_above", [False, True])
def test_vocabulary(tmp_path: Path, wide_tensors: Weights, is_above: bool) -> None:
    folder = write_meta(tmp_path / "m", pieces_of(wide_tensors), PARAMS | {"vocab_size": 512})
    if is_above:
        (folder / "tokenizer.model").rename(tmp_path / "tokenizer.model")
    vocabulary = MetaCheckpoint(folder).vocabulary()
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (256, (257, 264, 265), True)
    assert vocabulary.special_tokens == {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    assert vocabulary.chat_template is None


def test_vocabulary_of_llama_2(tmp_path: Path, wide_tensors: Weights) -> None:
    folder = write_meta(tmp_path, pieces_of(wide_tensors), PARAMS | {"vocab_size": -1})
    _, sentencepiece = fuzz_tokenizer_model.seeds()
    (folder / "tokenizer.model").write_bytes(sentencepiece)
    vocabulary = MetaCheckpoint(folder).vocabulary()
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (1, (2,), True)
    assert Tokenizer(vocabulary).encode("a") == [261]


def test_the_vocabulary_of_another_model(tmp_path: Path, tensors: Weights) -> None:
    checkpoint = MetaCheckpoint(write_meta(tmp_path, pieces_of(tensors), PARAMS))
    with pytest.raises(CheckpointError, match="must fit the embedding's 40 rows, got 512 tokens"):
        checkpoint.vocabulary()
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.model; copy it there"):
        checkpoint.vocabulary()


def test_integers_without_their_settings_are_refused(tmp_path: Path, tensors: Weights) -> None:
    [piece] = pieces_of(tensors)
    piece["layers.0.attention.wq.scales"] = torch.ones(64, 2)
    with pytest.raises(CheckpointError, match=r"no `quantization_args`; take the params\.json that belongs"):
        open_checkpoint(write_meta(tmp_path, [piece], PARAMS))


def edit(folder: Path, **changes: Any) -> None:
    params = json.loads((folder / "params.json").read_text()) | changes
    (folder / "params.json").write_text(json.dumps(params))


def resave(number: int, change: Callable[[Weights], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / f"consolidated.{number:02d}.pth"
        piece = torch.load(path, weights_only=True)
        change(piece)
        torch.save(piece, path)

    return damage


def _rename(old: str, new: str) -> Callable[[Weights], object]:
    return lambda piece: piece.update({new: piece.pop(old)})


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no params": (lambda f: (f / "params.json").unlink(), "params.json cannot be read: No such file"),
    "params a list": (lambda f: (f / "params.json").write_text("[]"), "needs a JSON object, got list"),
    "params nested": (
        lambda f: (f / "params.json").write_text("[" * 200_000),
        "may be nested 64 deep, it is deeper",
    ),
    "a key twice": (
        lambda f: (f / "params.json").write_text('{"dim": 64, "dim": 128}'),
        "the key 'dim' is given twice",
    ),
    "a model that is a number": (lambda f: edit(f, model=7), "`model` must be an object, got 7"),
    "a width of text": (lambda f: edit(f, dim="64"), "`dim` must be a whole number, got '64'"),
    "another width": (lambda f: edit(f, dim=128), "`vocab_size` must be the embedding's 20 rows"),
    "another depth": (lambda f: edit(f, n_layers=3), "9 tensors are missing, the first is 'model.layers.2"),
    "a billion layers": (lambda f: edit(f, n_layers=10**9), "from 1 to 1024, got 1000000000"),
    "another vocabulary": (
        lambda f: edit(f, vocab_size=41),
        "must be the embedding's 40 rows, or -1, got 41",
    ),
    "another feed-forward width": (
        lambda f: edit(f, ffn_dim_multiplier=1.0),
        "tensor 'model.layers.0.mlp.gate_proj.weight' needs shape (176, 64), got (96, 64)",
    ),
    "no weights": (
        lambda f: [path.unlink() for path in f.glob("*.pth")],
        "has a params.json and no consolidated.00.pth",
    ),
    "the first file is missing": (
        lambda f: (f / "consolidated.00.pth").unlink(),
        "no consolidated.00.pth; the download may be incomplete",
    ),
    "the second file is missing": (
        lambda f: (f / "consolidated.01.pth").unlink(),
        "needs 2 files consolidated.*.pth, got 1; the download may be incomplete",
    ),
    "a file that is no archive": (
        lambda f: (f / "consolidated.01.pth").write_bytes(b"\x80\x02}."),
        "consolidated.01.pth needs to be a zip archive",
    ),
    "a file of another type": (
        resave(1, lambda piece: piece.update({k: v.half() for k, v in piece.items()})),
        "needs F32 of shape (20, 64) as in the first file, got F16 of shape (20, 64)",
    ),
    "a file of another shape": (
        resave(1, lambda piece: piece.update({"norm.weight": torch.ones(63)})),
        "tensor 'norm.weight' needs F32 of shape (64,) as in the first file, got F32 of shape (63,)",
    ),
    "a tensor in one file only": (
        resave(1, lambda piece: piece.pop("norm.weight")),
        "must have the same tensors, 'norm.weight' is in one of them only",
    ),
    "tensors of integers": (
        lambda f: [
            resave(i, lambda piece: piece.update({"norm.weight": torch.ones(64, dtype=torch.int32)}))(f)
            for i in (0, 1)
        ],
        "tensor 'norm.weight' must be stored as F32, F16, BF16, got I32",
    ),
    "a name of Hugging Face": (
        lambda f: [resave(i, _rename("norm.weight", "model.norm.weight"))(f) for i in (0, 1)],
        "1 tensors are missing, the first is 'model.norm.weight'",
    ),
    "an expert": (
        lambda f: [
            resave(
                i, lambda piece: piece.update({"layers.0.feed_forward.experts.0.w1.weight": torch.ones(2)})
            )(f)
            for i in (0, 1)
        ],
        "belong to no part of a Llama, the first is 'layers.0.feed_forward.experts.0.w1.weight'",
    ),
    "no embedding": (
        lambda f: [resave(i, lambda piece: piece.pop("tok_embeddings.weight"))(f) for i in (0, 1)],
        "needs a matrix `tok_embeddings.weight`, it has none",
    ),
    "an embedding of one axis": (
        lambda f: [
            resave(i, lambda piece: piece.update({"tok_embeddings.weight": torch.ones(40)}))(f)
            for i in (0, 1)
        ],
        "needs a matrix `tok_embeddings.weight`, it has none",
    ),
    "queries of three axes": (
        lambda f: [
            resave(i, lambda piece: piece.update({"layers.0.attention.wq.weight": torch.ones(4, 4, 4)}))(f)
            for i in (0, 1)
        ],
        "'model.layers.0.self_attn.q_proj.weight' needs shape (64, 64), got (4, 4, 4)",
    ),
    "a number as queries": (
        lambda f: [
            resave(i, lambda piece: piece.update({"layers.0.attention.wq.weight": torch.ones(())}))(f)
            for i in (0, 1)
        ],
        "'model.layers.0.self_attn.q_proj.weight' needs shape (64, 64), got ()",
    ),
    "vision": (
        lambda f: edit(f, vision_chunk_size=560),
        "says that this is a model with vision, which is not",
    ),
    "quantized": (lambda f: edit(f, quantization_args=7), "`quantization_args` must be an object, got 7"),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_that_are_no_whole_llama(tmp_path: Path, tensors: Weights, case: str) -> None:
    damage, words = BAD[case]
    write_meta(tmp_path, pieces_of(tensors, 2), PARAMS)
    damage(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        MetaCheckpoint(tmp_path)
    assert words in str(caught.value)
