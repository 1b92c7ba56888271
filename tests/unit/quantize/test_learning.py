"""Learning rotations and scales: gradients against the network of the paper, progress, and going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import VARIANTS, save_tiny
from torch import Tensor, nn

from puna.models.checkpoint import Checkpoint
from puna.models.open import open_checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.nn.fake_quantized import fake_tokens
from puna.nn.model import Transformer, hadamard
from puna.nn.rounding import group_scales, round_groups
from puna.quantize import distill as distilling
from puna.quantize import learn_rotations as learning
from puna.quantize import network as networks
from puna.quantize.cayley import skew_direction
from puna.quantize.layers import Solution
from puna.quantize.mapped import mapped
from puna.quantize.rotations import RotatedCheckpoint, Rotations, random_rotations

OTHER_TOKENS = torch.randint(0, 256, (4, 48), generator=torch.Generator().manual_seed(7))


def bend(x: Tensor) -> Tensor:
    """In place of rounding: as small, and it does not commute with rotations, but smooth."""
    return x + 0.05 * torch.sin(5 * x)


def half_model(folder: Path, **changes: object) -> Checkpoint:
    """A tiny model whose matrices are bfloat16 numbers, as those that are learned on are."""
    model = save_tiny(folder, **changes).bfloat16()
    for name, parameter in model.named_parameters():
        assert "norm" in name or parameter.abs().max() < 10
    model.save_pretrained(folder)
    return open_checkpoint(folder)


def merged_loss(source: Checkpoint, tokens: Tensor, stream: Tensor, values: Tensor) -> Tensor:
    """SpinQuant's network: rotations in the weights, and the stream itself rotated; float64."""
    model = from_checkpoint(source, dtype=torch.float64)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    merged: dict[str, Tensor] = {name: torch.ones_like(w) for name, w in weights.items() if "norm" in name}
    heads, block = source.config.head_dim, source.config.rotation_block
    table = weights["model.embed_tokens.weight"]
    merged["model.embed_tokens.weight"] = table @ stream
    gain, head = weights["model.norm.weight"], weights.get("lm_head.weight", table)
    for i in range(source.config.n_layers):
        layer = f"model.layers.{i}."
        for part, norm in (
            ("self_attn.q_proj", "input"), ("self_attn.k_proj", "input"), ("self_attn.v_proj", "input"),
            ("mlp.gate_proj", "post_attention"), ("mlp.up_proj", "post_attention"),
        ):  # fmt: skip
            name = f"{layer}{part}.weight"
            merged[name] = weights[name] * weights[f"{layer}{norm}_layernorm.weight"] @ stream
        name = f"{layer}self_attn.v_proj.weight"
        merged[name] = (values[i].T @ merged[name].unflatten(0, (-1, heads))).flatten(0, 1)
        name = f"{layer}self_attn.o_proj.weight"
        merged[name] = stream.T @ (weights[name].unflatten(1, (-1, heads)) @ values[i]).flatten(1)
        name = f"{layer}mlp.down_proj.weight"
        merged[name] = hadamard(stream.T @ weights[name], block)
    rotated = replace(source.config, has_down_rotation=True, tied_embeddings=False)
    with torch.device("meta"):
        network = Transformer(rotated).double()
    for module in network.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, args: (bend(args[0]),))
    normed = torch.func.functional_call(network.model, _without(merged, "model."), (tokens[None],))[0, :-1]
    if source.config.tied_embeddings:
        logits = bend(normed @ stream.T * gain @ stream) @ (head @ stream).T
    else:
        logits = bend(normed) @ (head * gain @ stream).T
    return nn.functional.cross_entropy(logits, tokens[1:])


def _without(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


@pytest.mark.parametrize("name", ["tied", "gqa 5", "mqa"])
def test_directions_are_those_of_the_network_with_merged_rotations(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = half_model(tmp_path, **VARIANTS[name])
    rotations, tokens = random_rotations(source.config, 3), OTHER_TOKENS[0]
    stream, values = (matrix.clone().requires_grad_() for matrix in (rotations.stream, rotations.values))
    loss = merged_loss(source, tokens, stream, values)
    expected = torch.autograd.grad(loss, (stream, values))
    for module in (learning, networks):
        monkeypatch.setattr(module, "fake_tokens", bend)
    network, turns = learning.turned_network(source, rotations)
    ours = learning._loss(network, tokens)
    gradients = torch.autograd.grad(ours, turns)
    assert ours.item() == pytest.approx(loss.item(), abs=1e-5)
    for rotation, found, wanted in (
        (rotations.stream, gradients[0].double(), expected[0]),
        (rotations.values, torch.stack(gradients[1:]).double(), expected[1]),
    ):
        direction = skew_direction(rotation, wanted)
        assert float(direction.abs().max()) > 1e-4
        torch.testing.assert_close(skew_direction(rotation, found), direction, atol=2e-6, rtol=2e-3)


def spiky_model(folder: Path) -> Checkpoint:
    """A model with three dimensions of the stream a hundred times as large, as trained ones have."""
    model = save_tiny(folder, tie_word_embeddings=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, [3, 17, 30]] *= 60
        model.lm_head.weight *= 4
    model.bfloat16().save_pretrained(folder)
    return open_checkpoint(folder)


def rounding_error(source: Checkpoint, rotations: Rotations) -> float:
    network, _ = learning.turned_network(source, rotations)
    with torch.no_grad():
        return float((network(OTHER_TOKENS) - from_checkpoint(source)(OTHER_TOKENS)).square().mean())


def test_learning_spreads_outliers_and_keeps_rotations_orthogonal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The gradients of so small a model are small; this way steps are as long as they may be.
    monkeypatch.setattr(learning, "_RATE", 1e3)
    source = spiky_model(tmp_path)
    config = source.config
    still = Rotations(
        torch.eye(config.dim, dtype=torch.float64),
        torch.eye(config.head_dim, dtype=torch.float64).repeat(config.n_layers, 1, 1),
    )
    kept: list[Rotations] = []
    learned = learning.learn_rotations(
        source, OTHER_TOKENS, still, steps=40, after_step=lambda done, rotations: kept.append(rotations)
    )
    assert len(kept) == 40
    assert rounding_error(source, learned) < 0.9 * rounding_error(source, still)
    for matrix in (learned.stream, *learned.values):
        one = torch.eye(len(matrix), dtype=torch.float64)
        torch.testing.assert_close(matrix @ matrix.T, one, atol=1e-13, rtol=0)
    again = learning.learn_rotations(source, OTHER_TOKENS, kept[29], steps=40, done=30)
    torch.testing.assert_close(again.stream, learned.stream, atol=0, rtol=0)


def rounded(checkpoint: Checkpoint, index: int, part: str) -> Solution:
    weight = torch.from_numpy(checkpoint.tensor(f"model.layers.{index}.{part}.weight").to_float32())
    scales = group_scales(weight, "range")
    return round_groups(weight, scales), scales


@pytest.mark.parametrize("name", ["tied", "odd sizes"])
def test_distilling_brings_predictions_nearer_and_goes_on_after_a_break(name: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, **VARIANTS[name])
    source = open_checkpoint(tmp_path)
    rotated = RotatedCheckpoint(source, random_rotations(source.config, 0))
    tokens = torch.randint(0, 256, (24, 64), generator=torch.Generator().manual_seed(1))

    def read(index: int, part: str) -> Solution:
        return rounded(rotated, index, part)

    kept: list[dict[str, Tensor]] = []

    def keep(done: int, state: dict[str, Tensor]) -> None:
        kept.append({name: values.clone() for name, values in state.items()})

    options = {"steps": 24, "rate": 3e-3}
    learned = distilling.distill(source, rotated, read, tokens, after_step=keep, **options)
    again = distilling.distill(source, rotated, read, tokens, done=20, state=kept[19], **options)
    assert learned.keys() == again.keys()
    for tensor, values in learned.items():
        torch.testing.assert_close(again[tensor], values, atol=0, rtol=0)

    teacher = networks.frozen_network(source)
    networks.hold_as_halves(teacher)
    student, growths = distilling._student(rotated, read, "cpu")
    divergences = []
    for _ in range(2):
        with torch.no_grad():
            parts = [float(distilling._divergence(teacher, student, text)) for text in OTHER_TOKENS]
            for tensor, growth in growths.items():
                growth.copy_(learned[tensor])
        divergences.append(sum(parts))
    assert divergences[1] < 0.97 * divergences[0], divergences


def test_weights_stay_in_the_file_and_are_wide_only_while_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "WIDE_ROWS", 7)
    source = half_model(tmp_path, **VARIANTS["tied"])
    model = networks.frozen_network(source)
    for name, weight in model.named_parameters():
        stored = source.tensor(name)
        if weight.ndim == 2:
            assert weight.data_ptr() == stored.data.ctypes.data, name
        assert torch.equal(weight.float(), torch.from_numpy(stored.to_float32())), name
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()

    weight = model.model.layers[0].mlp.up_proj.weight
    x = torch.randn(5, 3, weight.shape[1], requires_grad=True)
    remembered: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: remembered.append(t) or t, lambda t: t):
        y = networks.Half(model.model.layers[0].mlp.up_proj)(x)
    assert [t.data_ptr() for t in remembered] == [weight.data_ptr()]
    expected = x.detach().double().requires_grad_(True)
    wanted = expected @ weight.double().T
    torch.testing.assert_close(y.double(), wanted, atol=1e-6, rtol=1e-6)
    direction = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, direction)
    (wanted_gradient,) = torch.autograd.grad(wanted, expected, direction.double())
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=1e-6, rtol=1e-6)


def test_halves_that_begin_at_an_odd_byte_are_copied() -> None:
    data = np.arange(11, dtype=np.uint8)[1:].view(np.int16)
    data.flags.writeable = False
    assert mapped(data).tolist() == data.tolist()


def test_rounding_in_the_networks_is_that_of_the_engine() -> None:
    x = torch.randn(3, 20)
    assert torch.equal(networks.Rounded()(x), fake_tokens(x))
