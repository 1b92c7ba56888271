"""The fake-quantized torch model against the native engine on the weights that it exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import VARIANTS, save_tiny

from puna import _native
from puna.engine.native import NativeEngine
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, write_checkpoint
from puna.nn.checkpoint import from_checkpoint, load
from puna.nn.fake_quantized import Int4Linear, Int8Linear, fake_quantize, fake_tokens
from puna.nn.model import Transformer
from puna.nn.packed import ModelCheckpoint
from puna.tokens import Tokenizer

TOLERANCE = 1e-4  # float32 sums in another order


def tokens_of(n: int, vocab: int = 260) -> list[int]:
    return np.random.default_rng(0).integers(0, vocab, n).tolist()


def errors(model: Transformer, path: Path, texts: list[list[int]]) -> list[np.ndarray]:
    """How far torch and the engine are apart, ``[tokens, vocabulary]`` for each text."""
    vocabulary = open_checkpoint(path).vocabulary()
    engine = NativeEngine(pack_checkpoint(ModelCheckpoint(model)), Tokenizer(vocabulary), cache="f32")
    native = [engine.logits(tokens) for tokens in texts]
    engine.close()
    with torch.no_grad():
        ours = [model(torch.tensor([tokens]))[0].float().numpy() for tokens in texts]
    return [np.abs(a - b) for a, b in zip(native, ours, strict=True)]


def assert_rounds_as_the_engine(
    module: torch.nn.Module, name: str, model: Transformer, x: torch.Tensor
) -> None:
    """The layer's output on rows x is the native kernel's, up to the order of its float sums."""
    matrix = ModelCheckpoint(model).packed(name)
    native = _native.kernels.matmul(
        _native.isa(), matrix.format, matrix.data, matrix.rows, matrix.columns, x.contiguous().numpy()
    )
    rows, weight = fake_tokens(x), torch.from_numpy(matrix.to_float32())
    # What a float32 sum over the columns may lose, at worst, with every product of the same sign; the engine
    # takes the zero point's part away at the end.
    reach = rows.abs() + rows.abs().amax(-1, keepdim=True)
    bound = reach.double() @ weight.abs().double().T * matrix.columns * 2**-24 + 1e-9
    assert ((module(x) - torch.from_numpy(native)).abs() <= bound).all(), name


def test_tokens_are_rounded_to_the_engines_very_bits() -> None:
    rows = (
        torch.randn(200, 96, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 6, 200)[:, None]
    )
    rows[3] = 0
    rows[4], rows[5] = rows[4].abs(), -rows[5].abs()
    for row, ours in zip(rows, fake_tokens(rows), strict=True):
        q, scale, zero = _native.kernels.quantize(_native.isa(), row.numpy())
        theirs = (torch.from_numpy(q).float() - zero) * torch.tensor(scale, dtype=torch.float32)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_the_engines(name: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, **VARIANTS[name])
    model = load(str(tmp_path))
    fake_quantize(model)
    [error] = errors(model, tmp_path, [tokens_of(60)])
    # An input at a tie may round the other way, which moves the logits of its place and those after it.
    assert np.median(error) < TOLERANCE, float(np.median(error))
    assert error.max() < 0.15, float(error.max())


def test_an_exported_file_gives_the_bits_of_the_model_in_memory(tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", tie_word_embeddings=True)
    source = open_checkpoint(tmp_path / "in")
    model = from_checkpoint(source)
    fake_quantize(model)
    ours = ModelCheckpoint(model, source.vocabulary())
    write_checkpoint(ours, tmp_path / "out", "auto")
    packed, written = pack_checkpoint(ours), pack_checkpoint(open_checkpoint(tmp_path / "out"))
    assert {matrix.format for matrix in written.matrices.values()} == {"int4_group32", "int8_channel"}
    for name, matrix in written.matrices.items():
        assert np.array_equal(matrix.data, packed.matrices[name].data)
    for name, norm in written.norms.items():
        assert np.array_equal(norm, packed.norms[name])


def test_gradients_pass_straight_through(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    model = load(str(tmp_path))
    fake_quantize(model, "range")
    x = torch.randn(5, 48, requires_grad=True)
    for layer in (model.model.layers[0].mlp.gate_proj, model.lm_head):
        weight = torch.from_numpy(
            ModelCheckpoint(model)
            .packed("lm_head.weight" if layer is model.lm_head else "model.layers.0.mlp.gate_proj.weight")
            .to_float32()
        )
        upstream = torch.randn(5, len(weight))
        x.grad = layer.weight.grad = None
        layer(x).backward(upstream)
        torch.testing.assert_close(x.grad, upstream @ weight)
        torch.testing.assert_close(layer.weight.grad, upstream.T @ fake_tokens(x.detach()))


def test_it_learns_and_compiles(tmp_path: Path) -> None:
    save_tiny(tmp_path, tie_word_embeddings=True)
    model, tokens = load(str(tmp_path)), torch.tensor([tokens_of(40)])
    fake_quantize(model, "range")
    step = torch.compile(model, backend="eager", fullgraph=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(step(tokens)[0, :-1], tokens[0, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 1


def test_every_layer_of_the_default_model_is_the_engines(default_gguf: Path) -> None:
    model = load(str(default_gguf))
    fake_quantize(model, "signed")
    inputs: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Int4Linear | Int8Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0][0]}))
    with torch.no_grad():
        model(torch.tensor([tokens_of(8, 49152)]))
        for name, x in inputs.items():
            stored = "model.embed_tokens" if name == "lm_head" else name
            assert_rounds_as_the_engine(model.get_submodule(name), f"{stored}.weight", model, x)
    assert len(inputs) == 7 * 30 + 1


def test_the_default_model_agrees_until_a_rounding_turns(default_gguf: Path) -> None:
    """One layer: to float32 accuracy at most tokens. All layers: no further than float32 is from float64."""
    whole, tokens = load(str(default_gguf)), tokens_of(40, 49152)
    first = Transformer(replace(whole.config, n_layers=1))
    first.load_state_dict({name: w for name, w in whole.state_dict().items() if name in first.state_dict()})
    fake_quantize(first, "signed")
    # Texts of one token, as a turn at one place would show at all that follow; logits are up to 80.
    worst = np.array([error.max() for error in errors(first, default_gguf, [[t] for t in tokens[:12]])])
    assert np.mean(worst < 1e-3) > 0.6, np.sort(worst)
    fake_quantize(whole, "signed")
    with torch.no_grad():
        narrow = whole(torch.tensor([tokens]))
        ours = float(np.median(errors(whole, default_gguf, [tokens])))
        wide = whole.double()(torch.tensor([tokens]))
    assert ours < 1.5 * float((narrow - wide).abs().median())
