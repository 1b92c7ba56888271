"""Rotations: Hadamard matrices, steps over orthogonal matrices, and what rotated models compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import VARIANTS, save_tiny
from torch import Tensor

from puna.models.open import open_checkpoint
from puna.nn.checkpoint import from_checkpoint, weights_of
from puna.quantize.cayley import cayley_step, nearest_rotation, skew_direction
from puna.quantize.hadamard_matrix import hadamard_matrix
from puna.quantize.rotations import RotatedCheckpoint, Rotations, random_rotations


def identity(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 64, 12, 20, 28, 36, 40, 44, 48, 60, 96, 108, 140, 576])
def test_hadamard_matrices_are_orthogonal_and_flat(n: int) -> None:
    matrix = hadamard_matrix(n)
    assert matrix is not None
    torch.testing.assert_close(matrix @ matrix.T, identity(n), atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, n**-0.5))


def test_a_power_of_two_is_sylvesters() -> None:
    matrix = hadamard_matrix(256)
    assert matrix is not None
    for i, row in enumerate(matrix):
        assert [value > 0 for value in row.tolist()] == [(i & j).bit_count() % 2 == 0 for j in range(256)]


@pytest.mark.parametrize("n", [3, 6, 50, 77, 18])
def test_some_sizes_have_none_and_get_a_random_rotation(n: int) -> None:
    assert hadamard_matrix(n) is None


def problem(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    rotation, _ = torch.linalg.qr(torch.randn(3, n, n, generator=generator, dtype=torch.float64))
    return rotation, torch.randn(3, n, n, generator=generator, dtype=torch.float64)


def published_step(x: Tensor, gradient: Tensor, rate: float, iterations: int | None) -> Tensor:
    """A step of algorithm 1 of Li et al. 2020, iterated, or with the inverse that this approaches."""
    v = -gradient.T
    m = v @ x
    half = m - x.T @ (x @ m) / 2
    w = half - half.T
    a = min(rate, 1 / (float(w.abs().sum(0).max()) + 1e-8))
    if iterations is None:
        return (torch.linalg.inv(identity(len(x)) - a / 2 * w) @ (identity(len(x)) + a / 2 * w) @ x.T).T
    y = x.T + a * v
    for _ in range(iterations):
        y = x.T + a / 2 * w @ (x.T + y)
    return y.T


@pytest.mark.parametrize("rate", [1e-3, 1.5])
def test_a_step_is_the_published_one_with_the_exact_inverse(rate: float) -> None:
    rotations, gradients = problem(24)
    ours = cayley_step(rotations, skew_direction(rotations, gradients), rate)
    for step, x, gradient in zip(ours, rotations, gradients, strict=True):
        torch.testing.assert_close(step, published_step(x, gradient, rate, None), atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(step, published_step(x, gradient, rate, 40), atol=1e-9, rtol=1e-9)
        assert float((step - published_step(x, gradient, rate, 5)).abs().max()) < 0.01


def test_steps_stay_orthogonal_and_find_a_rotation() -> None:
    _, target = problem(12)
    target = torch.linalg.matrix_exp((target - target.mT) / 20)
    rotation = identity(12).expand(3, 12, 12)
    first = float((rotation - target).square().sum())
    for _ in range(60):
        rotation = cayley_step(rotation, skew_direction(rotation, 2 * (rotation - target)), 0.5)
    torch.testing.assert_close(rotation @ rotation.mT, identity(12).expand(3, 12, 12), atol=1e-12, rtol=0)
    assert float((rotation - target).square().sum()) < 1e-3 * first


def test_the_nearest_rotation_is_that_of_the_polar_decomposition() -> None:
    _, matrices = problem(9)
    for ours, matrix in zip(nearest_rotation(matrices), matrices, strict=True):
        squares, turns = torch.linalg.eigh(matrix.T @ matrix)
        root = turns * squares.rsqrt() @ turns.T
        torch.testing.assert_close(ours, matrix @ root, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_rotated_model_is_the_same_model(name: str, tmp_path: Path) -> None:
    """Full logits, for every grouping of heads, tied and untied, with and without Hadamard matrices."""
    save_tiny(tmp_path, **VARIANTS[name])
    source = open_checkpoint(tmp_path)
    rotated = RotatedCheckpoint(source, random_rotations(source.config, 0))
    assert rotated.config.has_output_rotation == source.config.tied_embeddings
    tokens = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))
    # In float64 what is left is the rounding of the tensors, in float32 that of the sums too.
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
        with torch.no_grad():
            original = from_checkpoint(source, dtype=dtype)(tokens)
            ours = from_checkpoint(rotated, dtype=dtype)(tokens)
        torch.testing.assert_close(ours, original, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["gqa 5", "tied"])
def test_it_is_exact_but_for_the_rounding_of_tensors(name: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, **VARIANTS[name])
    source = open_checkpoint(tmp_path)
    rotations = random_rotations(source.config, 1)
    rotated = RotatedCheckpoint(source, rotations)
    model, tokens = from_checkpoint(rotated, dtype=torch.float64), torch.arange(60)[None]
    with torch.no_grad():
        for tensor, weight in weights_of(model).items():
            weight.copy_(rotated.turned(tensor))
        table = torch.from_numpy(source.tensor("model.embed_tokens.weight").to_float32()).double()
        model.model.embed_tokens.weight.copy_(table @ rotations.stream)
        if not source.config.tied_embeddings:
            head = torch.from_numpy(source.tensor("lm_head.weight").to_float32()).double()
            gain = torch.from_numpy(source.tensor("model.norm.weight").to_float32()).double()
            model.lm_head.weight.copy_(head * gain @ rotations.stream)
        original = from_checkpoint(source, dtype=torch.float64)(tokens)
        torch.testing.assert_close(model(tokens), original, atol=1e-11, rtol=0)


def test_the_seed_decides(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    config = open_checkpoint(tmp_path).config
    first, again, other = (random_rotations(config, seed) for seed in (1, 1, 2))
    assert torch.equal(first.stream, again.stream)
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.stream, other.stream)
    assert not torch.equal(first.values[0], first.values[1])
    for rotations in (first, Rotations(first.values[0], first.values)):
        n = len(rotations.stream)
        torch.testing.assert_close(rotations.stream.T @ rotations.stream, identity(n), atol=1e-12, rtol=0)
