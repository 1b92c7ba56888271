"""Programs for ExecuTorch, run by ExecuTorch's own runtime beside the native engine."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.tiny import LLAMA3_ROPE, add_parts, save_tiny

from puna import _native
from puna.errors import CheckpointError, ConfigError, StoreError
from puna.export.executorch import _Integers, write_executorch
from puna.export.targets import write
from puna.llama import load
from puna.models.checkpoint import Checkpoint, Tensor, Vocabulary
from puna.models.open import open_checkpoint
from puna.models.packed import PackedMatrix, write_checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.nn.packed import ModelCheckpoint

TOKENS = [3, *range(50, 150, 3), 257, 256, 7, 7, 9]
CONTEXT = 96


class OnTheirGrid:
    """A packed model whose scales are bfloat16 too, and above zero: XNNPACK then rounds nothing."""

    def __init__(self, source: Any) -> None:
        self.path, self.kind, self.config = source.path, source.kind, source.config
        self.dtypes, self._source = source.dtypes, source

    def tensor(self, name: str) -> Tensor:
        return self._source.tensor(name)

    def vocabulary(self) -> Vocabulary:
        return self._source.vocabulary()

    def packed(self, name: str) -> PackedMatrix:
        matrix = self._source.packed(name)
        if matrix.format != "int4_group32":
            return matrix
        q, scales = matrix.to_integers()
        near = torch.from_numpy(np.array(scales)).bfloat16().half().numpy()
        data = _native.pack_groups("int4_group32", q, near.view(np.uint16))
        return PackedMatrix(matrix.format, matrix.rows, matrix.columns, np.asarray(data))


def make(folder: Path, additions: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A random model in the scheme, on XNNPACK's grid."""
    save_tiny(folder / "source", **{"hidden_size": 64, "intermediate_size": 128, **changes})
    source: Checkpoint = open_checkpoint(folder / "source")
    if additions:
        source = ModelCheckpoint(add_parts(from_checkpoint(source), **additions), source.vocabulary())
    write_checkpoint(source, folder / "rounded", "int4")
    write_checkpoint(OnTheirGrid(open_checkpoint(folder / "rounded")), folder / "model", "auto")
    return open_checkpoint(folder / "model")


def ours(path: Path) -> NDArray[np.float32]:
    with load(str(path), cache="f32", threads=2) as llama:
        return llama.engine.logits(TOKENS)  # type: ignore[attr-defined]


class Graph:
    """A model's graph in PyTorch, before it is lowered: ExecuTorch's operators, one after the other."""

    def __init__(self, model: Any) -> None:
        from puna.nn.executorch import Program, Source

        source = _Integers(model)
        self._program = Program(model.config, Source(source.integers, source.values), CONTEXT).eval()

    def __call__(self, tokens: list[int], position: int) -> NDArray[np.float32]:
        with torch.no_grad():
            return self._program(torch.tensor([tokens]), torch.tensor([position]))[0].numpy()


class Theirs:
    """A program in ExecuTorch's runtime."""

    def __init__(self, path: Path) -> None:
        from executorch.extension.pybindings.portable_lib import _load_for_executorch

        self._program = _load_for_executorch(str(path))

    def __call__(self, tokens: list[int], position: int) -> NDArray[np.float32]:
        inputs = (torch.tensor([tokens]), torch.tensor([position]))
        return self._program.run_method("forward", inputs)[0][0].numpy().copy()

    def told(self, name: str) -> Any:
        return self._program.run_method(name, ())

    def names(self) -> set[str]:
        return set(self._program.method_names())


def token_by_token(program: Graph | Theirs) -> NDArray[np.float32]:
    return np.stack([program([token], i) for i, token in enumerate(TOKENS)])


def assert_near(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> None:
    """Sums in another order; now and then that moves a token's rounding by a step of 8 bits."""
    off = np.abs(theirs - ours).max(-1) / np.abs(ours).max()
    assert np.median(off) < 1e-5
    assert off.max() < 0.03


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A layer with all that there can be, and its program: lowering takes long, so there is one."""
    folder = tmp_path_factory.mktemp("executorch")
    parts = {"has_down_rotation": True, "has_output_rotation": True, "lora_rank": 5, "lora_scale": 1.7}
    sizes = {"intermediate_size": 96, "num_hidden_layers": 1}
    model = make(folder, parts, tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE, **sizes)
    assert model.config.rotation_block == 32
    assert write_executorch(model, folder / "m.pte", context=CONTEXT) == []
    return model, folder / "m.pte"


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_graph_of_a_plain_model_computes_what_the_engine_does(is_tied: bool, tmp_path: Path) -> None:
    model = make(tmp_path, tie_word_embeddings=is_tied, rope_parameters=LLAMA3_ROPE)
    graph, expected = Graph(model), ours(model.path)
    assert_near(token_by_token(graph), expected)
    assert_near(graph(TOKENS, 0)[None], expected[-1:])


def test_token_by_token_the_program_computes_what_graph_and_engine_do(lowered: tuple[Any, Path]) -> None:
    model, path = lowered
    rows, expected = token_by_token(Theirs(path)), ours(model.path)
    assert_near(rows, token_by_token(Graph(model)))
    # The engine rounds what adaptors and the matrix before the head read to bfloat16, the program nothing.
    assert np.abs(rows - expected).max() < 0.05 * np.abs(expected).max()
    assert np.corrcoef(rows.ravel(), expected.ravel())[0, 1] > 0.9995


def test_prompts_of_any_length_and_going_back(lowered: tuple[Any, Path]) -> None:
    model, path = lowered
    program, expected = Theirs(path), token_by_token(Graph(model))
    whole = program(TOKENS, 0)
    assert_near(whole[None], expected[-1:])
    program(TOKENS[:10], 0)
    assert_near(program(TOKENS[10:], 10)[None], expected[-1:])
    assert_near(program(TOKENS[:7], 0)[None], expected[6:7])


def test_what_runners_ask(lowered: tuple[Any, Path]) -> None:
    model, path = lowered
    program = Theirs(path)
    told = {name: program.told(name) for name in program.names() - {"forward"}}
    vocabulary = model.vocabulary()
    assert told == {
        "get_bos_id": [vocabulary.bos_id],
        "get_eos_ids": list(vocabulary.eos_ids),
        "get_vocab_size": [260],
        "get_n_layers": [1],
        "get_max_seq_len": [CONTEXT],
        "get_max_context_len": [CONTEXT],
        "use_kv_cache": [True],
        "use_sdpa_with_kv_cache": [True],
        "enable_dynamic_shape": [True],
    }


def test_xnnpack_has_all_quantized_matrices(lowered: tuple[Any, Path]) -> None:
    """Left to ExecuTorch itself are floats and the embedding; integers of 4 bits are two a byte."""
    model, path = lowered
    written = path.read_bytes()
    left = set(re.findall(rb"(?:quantized_decomposed|torchao)::\w+", written))
    assert left == {b"quantized_decomposed::embedding_byte"}
    matrices = {name: shape for name, shape in model.config.tensor_shapes().items() if len(shape) == 2}
    n_bytes = 2 * 260 * 64  # the head's and the embedding's, once each
    for name, (rows, columns) in matrices.items():
        if "lora" in name or "rotation" in name:
            n_bytes += 4 * rows * columns
        elif ".layers." in name:
            n_bytes += rows * columns // 2 + rows * columns // 16
    assert n_bytes < len(written) < n_bytes + 120_000


def integers(checkpoint: Any, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    q, scales = checkpoint.packed(name).to_integers()
    return q, scales.astype(np.float32)


NAME = "model.layers.0.mlp.up_proj.weight"


class Changed(OnTheirGrid):
    """A packed model, one of whose matrices has other integers and scales."""

    def __init__(self, source: Any, q: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        super().__init__(source)
        self._changed = q, scales

    def packed(self, name: str) -> PackedMatrix:
        matrix = self._source.packed(name)
        if name != NAME:
            return matrix
        q, scales = self._changed
        data = _native.pack_groups("int4_group32", q, scales.astype(np.float16).view(np.uint16))
        return PackedMatrix(matrix.format, matrix.rows, matrix.columns, np.asarray(data))


@pytest.fixture
def rounded(tmp_path: Path) -> Any:
    save_tiny(tmp_path / "source", hidden_size=64, intermediate_size=96)
    write_checkpoint(open_checkpoint(tmp_path / "source"), tmp_path / "model", "int4")
    return open_checkpoint(tmp_path / "model")


def test_scales_become_bfloat16_and_are_above_zero(rounded: Any) -> None:
    q, scales = integers(rounded, NAME)
    q = np.clip(q, -7, 7)
    scales[::2, 0] *= -1
    scales[1, 1] = 0
    source = _Integers(Changed(rounded, q, scales))
    made, near = source.integers(NAME)
    expected = torch.from_numpy(q.astype(np.float32).reshape(96, 2, 32) * scales[..., None])
    values = made.astype(np.float32).reshape(96, 2, 32) * near[..., None]
    np.testing.assert_allclose(values, expected, rtol=2.0**-8)
    assert (near > 0).all()
    np.testing.assert_array_equal(
        np.abs(made)[scales.repeat(32, 1) != 0], np.abs(q)[scales.repeat(32, 1) != 0]
    )
    np.testing.assert_array_equal(near, torch.from_numpy(near).bfloat16().float().numpy())
    assert source.notes() == ["the scales of 1 of 1 matrices are rounded to bfloat16"]
    q, scales = integers(rounded, "model.embed_tokens.weight")
    made, near = source.integers("model.embed_tokens.weight")
    np.testing.assert_array_equal(made, q)
    np.testing.assert_array_equal(near, scales[:, 0])


def test_a_scale_below_zero_that_cannot_be_turned_is_refused(rounded: Any, tmp_path: Path) -> None:
    q, scales = integers(rounded, NAME)
    q[3, 40], scales[3, 1] = -8, -scales[3, 1]
    with pytest.raises(
        CheckpointError, match=r"below zero, which 1 of 192 groups .*up_proj.* `puna quantize --"
    ):
        write_executorch(Changed(rounded, q, scales), tmp_path / "m.pte")
    assert not list(tmp_path.glob("*m.pte*"))


@pytest.mark.parametrize(
    ("format", "changes", "message"),
    [
        (
            "bf16",
            {},
            r"8-bit rows for embedding and head, .*embed_tokens.* stored as bf16; use --format int4",
        ),
        ("int8", {}, r"8-bit rows .* stored as int8_group32"),
        ("int4", {"head_dim": 10}, r"rows of a multiple of 32 elements, .*o_proj.* has 40"),
    ],
)
def test_what_xnnpack_does_not_compute_is_refused(
    tmp_path: Path, format: str, changes: dict[str, Any], message: str
) -> None:
    save_tiny(tmp_path / "source", hidden_size=64, intermediate_size=96, **changes)
    write_checkpoint(open_checkpoint(tmp_path / "source"), tmp_path / "model", format)
    with pytest.raises(CheckpointError, match=message):
        write_executorch(open_checkpoint(tmp_path / "model"), tmp_path / "m.pte")
    assert not list(tmp_path.glob("*m.pte*"))


def test_what_is_asked_is_checked(rounded: Any, tmp_path: Path) -> None:
    for n in (1, 3):
        with pytest.raises(ConfigError, match=f"context of 4 tokens or more, got {n} and a model of"):
            write_executorch(rounded, tmp_path / "m.pte", context=n)
    with pytest.raises(ConfigError, match="part of ExecuTorch's programs only, not of gguf"):
        write(rounded, tmp_path / "m.gguf", "gguf", context=100)
    (tmp_path / "m.pte").write_text("mine")
    with pytest.raises(StoreError, match=r"m\.pte exists already"):
        write(rounded, tmp_path / "m.pte", "executorch", context=100)
    assert (tmp_path / "m.pte").read_text() == "mine"


@pytest.mark.parametrize("package", ["torch", "executorch"])
def test_a_package_that_is_not_there(
    package: str, rounded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "puna.nn.executorch", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*; pip install 'puna\[export\]'"):
        write_executorch(rounded, tmp_path / "m.pte")
    assert not list(tmp_path.glob("*m.pte*"))
