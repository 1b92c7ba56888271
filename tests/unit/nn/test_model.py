"""What the torch model promises beside its logits: compiling, memory, random weights, tied heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny

from puna.models.architectures import LLAMA32_1B
from puna.nn.checkpoint import load
from puna.nn.fake_quantized import fake_quantize
from puna.nn.model import KeyValueCache, Transformer

TOKENS = torch.arange(2 * 24).reshape(2, 24) * 7 % 260


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    logits = model(TOKENS)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_it_compiles_whole_forward_and_backward(tiny: Path) -> None:
    plain, compiled = load(str(tiny)), load(str(tiny))
    compiled.checkpoint_activations()
    loss = loss_of(torch.compile(compiled, backend="aot_eager", fullgraph=True))
    loss.backward()
    expected = loss_of(plain)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(compiled), gradients(plain))


def test_decoding_compiles_once(tiny: Path) -> None:
    model = load(str(tiny))
    torch._dynamo.reset()
    step = torch.compile(model, backend="eager", fullgraph=True)
    cache = KeyValueCache(model.config, batch=2, capacity=32)
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        logits = torch.cat([step(TOKENS[:, i : i + 1], cache) for i in range(24)], 1)
        torch.testing.assert_close(logits, model(TOKENS))


def test_checkpointed_activations_give_the_same_gradients_with_less_kept(tiny: Path) -> None:
    kept: dict[bool, int] = {}
    results = []
    for is_on in (False, True):
        model = load(str(tiny))
        model.checkpoint_activations(is_on)
        kept[is_on] = 0

        def count(tensor: torch.Tensor, is_on: bool = is_on) -> torch.Tensor:
            kept[is_on] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = loss_of(model)
        loss.backward()
        results.append(gradients(model))
    torch.testing.assert_close(results[1], results[0])
    assert kept[True] < kept[False] / 2


def test_a_tied_head_is_one_parameter(tmp_path: Path) -> None:
    save_tiny(tmp_path, tie_word_embeddings=True)
    model = load(str(tmp_path))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert set(dict(model.named_parameters())) == set(model.config.tensor_shapes())


def test_a_true_shape_has_the_right_size_and_names() -> None:
    with torch.device("meta"):
        model = Transformer(LLAMA32_1B)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == LLAMA32_1B.tensor_shapes()
    assert sum(p.numel() for p in model.parameters()) == 1_235_814_400


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_runs(dtype: torch.dtype, tiny: Path) -> None:
    model = load(str(tiny), dtype=dtype)
    with torch.no_grad():
        logits, expected = model(TOKENS), load(str(tiny))(TOKENS)
    assert logits.dtype == dtype
    assert float((logits.float() - expected).abs().mean()) < 0.1


@pytest.mark.parametrize("is_fake_quantized", [False, True])
def test_everything_is_made_where_the_weights_are(is_fake_quantized: bool, tiny: Path) -> None:
    """On a device that is not the CPU; what was made on the CPU instead could not be combined with it."""
    with torch.device("meta"):
        model = Transformer(load(str(tiny)).config)
    if is_fake_quantized:
        fake_quantize(model)
    model.checkpoint_activations()
    tokens = TOKENS.to("meta")
    logits = [
        model(tokens),
        model(tokens, KeyValueCache(model.config, batch=2, capacity=32, device="meta")),
        model(tokens, segments=torch.zeros_like(tokens)),
    ]
    assert [tensor.shape for tensor in logits] == [(2, 24, 260)] * 3
    logits[0].sum().backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


def test_new_weights_predict_nothing_yet(tiny: Path) -> None:
    torch.manual_seed(0)
    model = Transformer(load(str(tiny)).config)
    assert loss_of(model).item() == pytest.approx(torch.tensor(260.0).log().item(), abs=0.2)


def test_a_full_cache_is_an_error(tiny: Path) -> None:
    model = load(str(tiny))
    with torch.no_grad(), pytest.raises(IndexError):
        model(TOKENS, KeyValueCache(model.config, batch=2, capacity=23))
