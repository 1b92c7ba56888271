"""GPTQ against the textbook: one column at a time, the inverse Hessian downdated, in float64 loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from puna.nn.rounding import group_scales, round_groups
from puna.quantize.gptq import gptq


def problem(rows: int, columns: int, n: int = 700) -> tuple[Tensor, Tensor]:
    """Weights, and inputs whose columns depend on one another and differ in size."""
    generator = torch.Generator().manual_seed(columns)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64) / columns**0.5
    sizes = torch.logspace(-1, 1, columns, dtype=torch.float64)[torch.randperm(columns, generator=generator)]
    inputs = (
        torch.randn(n, columns, generator=generator, dtype=torch.float64) @ (mix + torch.eye(columns)) * sizes
    )
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64), inputs.T @ inputs


def textbook(weight: Tensor, hessian: Tensor, rule: str, damping: float, order: list[int]) -> Tensor:
    """Optimal brain quantization in a given order: no Cholesky factor and no blocks.

    Source: Frantar and Alistarh 2022, https://arxiv.org/abs/2208.11580, the removal step of equation 4.
    """
    n = weight.shape[1]
    w, inverse = (
        weight.clone(),
        torch.linalg.inv(hessian + damping * hessian.diagonal().mean() * torch.eye(n)),
    )
    out, scales = torch.empty_like(w), torch.empty(len(w), -(-n // 32))
    is_static = order != list(range(n))
    if is_static:
        scales = group_scales(weight, rule)
    for i in order:
        if not is_static and i % 32 == 0:
            scales[:, i // 32] = group_scales(w[:, i : i + 32].float(), rule)[:, 0]
        scale = scales[:, i // 32, None]
        out[:, i] = (round_groups(w[:, i, None], scale) * scale)[:, 0]
        step = (w[:, i] - out[:, i]) / inverse[i, i]
        w -= step[:, None] * inverse[i]
        inverse -= inverse[:, i, None] * inverse[None, i] / inverse[i, i]
    return out


def dequantized(q: Tensor, scales: Tensor) -> Tensor:
    return (q * scales.repeat_interleave(32, 1)[:, : q.shape[1]]).double()


@pytest.mark.parametrize("columns", [8, 32, 64, 80, 160, 601])
@pytest.mark.parametrize("rule", ["range", "signed"])
def test_it_is_the_textbook_algorithm(rule: str, columns: int) -> None:
    weight, hessian = problem(24, columns)
    expected = textbook(weight, hessian, rule, 0.01, list(range(columns)))
    ours = dequantized(*gptq(weight, hessian, rule=rule))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


def test_act_order_is_the_textbook_in_that_order() -> None:
    weight, hessian = problem(24, 96)
    order = hessian.diagonal().argsort(descending=True).tolist()
    expected = textbook(weight, hessian, "range", 0.05, order)
    ours = dequantized(*gptq(weight, hessian, rule="range", damping=0.05, act_order=True))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("act_order", [False, True])
def test_drift_moves_the_matrix_to_the_least_squares_solution(act_order: bool) -> None:
    """Rounded is the matrix that has the original's outputs on the inputs that the quantized model has."""
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(400, 96, generator=generator, dtype=torch.float64)
    inputs = original + 0.3 * torch.randn(400, 96, generator=generator, dtype=torch.float64)
    inputs[:, 5] = 0.5 * inputs[:, 4]
    weight, hessian = torch.randn(24, 96, generator=generator, dtype=torch.float64), inputs.T @ inputs
    damping = 0.01 * hessian.diagonal().mean()
    # As rows below the inputs, the damping keeps the matrix where it is.
    rows = torch.cat([inputs, damping.sqrt() * torch.eye(96, dtype=torch.float64)])
    wanted = torch.cat([original @ weight.T, damping.sqrt() * weight.T])
    best = torch.linalg.lstsq(rows, wanted).solution.T
    drift = (original - inputs).T @ inputs
    ours = gptq(weight, hessian, rule="range", drift=drift, act_order=act_order)
    order = hessian.diagonal().argsort(descending=True).tolist() if act_order else list(range(96))
    expected = textbook(best, hessian, "range", 0.01, order)
    torch.testing.assert_close(dequantized(*ours), expected, rtol=1e-6, atol=1e-9)


def loss(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    off = rounded.double() - weight
    return float((off @ hessian * off).sum())


@pytest.mark.parametrize("rule", ["range", "no-clipping", "signed", "least-squares", "clip", "search"])
def test_outputs_are_nearer_than_by_rounding_to_nearest(rule: str) -> None:
    weight, hessian = problem(64, 192)
    scales = group_scales(weight.float(), rule)
    plain = dequantized(round_groups(weight, scales), scales)
    ours = dequantized(*gptq(weight, hessian, rule=rule))
    assert loss(weight, ours, hessian) < 0.8 * loss(weight, plain, hessian)


def test_float32_solves_what_float64_solves() -> None:
    weight, hessian = problem(64, 192)
    losses = [
        loss(weight, dequantized(*gptq(weight.to(dtype), hessian.to(dtype), rule="search")), hessian)
        for dtype in (torch.float32, torch.float64)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_independent_inputs_leave_rounding_to_nearest() -> None:
    weight, _ = problem(8, 64)
    scales = group_scales(weight.float(), "range")
    q, ours = gptq(weight, torch.eye(64, dtype=torch.float64), rule="range")
    assert torch.equal(ours, scales)
    assert torch.equal(q, round_groups(weight, scales))


def test_inputs_that_are_never_used_or_all_alike_are_survived() -> None:
    weight, hessian = problem(8, 64)
    hessian[5], hessian[:, 5] = 0, 0
    hessian[6], hessian[:, 6] = hessian[7], hessian[:, 7]
    q, scales = gptq(weight.float(), hessian.float(), rule="search", damping=1e-9)
    assert scales.isfinite().all()
    assert q.abs().max() <= 8
    empty, _ = gptq(weight.float(), torch.zeros(64, 64), rule="range")
    assert torch.equal(empty, round_groups(weight.float(), group_scales(weight.float(), "range")))
