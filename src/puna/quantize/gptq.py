"""GPTQ: rounding a matrix column by column, each error made up for by the columns that follow.

Source: Frantar et al. 2022, https://arxiv.org/abs/2210.17323, algorithm 1.

==  =======================  ==  =======================
N   columns of the matrix    B   columns of a block
O   rows of the matrix
==  =======================  ==  =======================
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from puna.nn.rounding import GROUP, HIGH, LOW, group_scales, scale_of_groups

__all__ = ["gptq"]

_BLOCK = 4 * GROUP
_SOLVED_AT_ONCE = 256


def gptq(
    weight: Tensor,
    hessian: Tensor,
    *,
    rule: str,
    damping: float = 0.01,
    act_order: bool = False,
    drift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Round a matrix to 4 bits so that its outputs change little on the calibration inputs.

    Blocks of columns are as wide as a group, so that a group's scale is chosen when all errors of the columns
    before it have been made up for.

    Args:
        weight: ``[out, in]``.
        hessian: sum of ``x^T x`` over the inputs, ``[in, in]``; its scale does not matter. The computation
            is in its dtype, float32 or float64.
        rule: how scales are chosen, see `puna.nn.rounding.RULES`; where a rule measures errors, an error
            counts as much as it costs after the columns that follow have made up for it.
        damping: added to the diagonal, as a share of its mean.
        act_order: go through the columns from the largest input to the smallest; scales are chosen before.
        drift: sum of ``(y - x)^T x``, ``[in, in]``, where the original model feeds y and not x. The matrix is
            then rounded so that its outputs on x are near those of `weight` on y, which makes up for what the
            matrices before it have changed: the objective of GPTAQ (https://arxiv.org/abs/2504.02692) and
            Qronos (https://arxiv.org/abs/2505.11695). Were nothing rounded, the best matrix would be
            ``weight (1 + drift hessian^-1)``; that one is what is rounded.

    Returns:
        Whole numbers -8 to 7 in float32 ``[out, in]``, and scales ``[out, ceil(in / 32)]``.
    """
    n = weight.shape[1]
    diagonal = hessian.diagonal()
    order = torch.argsort(diagonal, descending=True) if act_order else torch.arange(n, device=weight.device)
    upper = _factor(hessian[order][:, order] if act_order else hessian, damping)
    # Columns of the matrix are rows here: each is worked on alone, and lies in one piece then.
    columns_NO = weight.to(hessian.dtype).T[order].contiguous()
    if drift is not None:
        columns_NO += upper.T @ (upper @ (drift[:, order].T @ weight.T.to(drift.dtype)))
    if act_order:
        scales = group_scales(columns_NO[torch.argsort(order)].T, rule, diagonal.float())
        scales_NO = scales.repeat_interleave(GROUP, 1)[:, :n].T[order]
        q_NO = _solve(columns_NO, upper, lambda start, _: scales_NO[start : start + GROUP])
    else:
        costs, parts = upper.diagonal().square().reciprocal().float(), []

        def choose(start: int, block: Tensor) -> Tensor:
            parts.append(scale_of_groups(_filled(block.T), rule, _filled(costs[None, start : start + GROUP])))
            return parts[-1].T.expand(len(block), -1)

        q_NO = _solve(columns_NO, upper, choose)
        scales = torch.cat(parts, 1)
    return q_NO[torch.argsort(order)].T.contiguous(), scales


def _solve(columns_NO: Tensor, upper: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Round columns one after the other.

    Args:
        columns_NO: the matrix, transposed; overwritten.
        upper: see `_factor`, ``[in, in]``.
        choose: from the first column of a block of up to 32 and what the block has become, the scales of all
            its weights.

    Returns:
        Whole numbers, float32, transposed.
    """
    n, q_NO = len(columns_NO), torch.empty(columns_NO.shape, device=columns_NO.device)
    for outer in range(0, n, _BLOCK):
        # Errors reach the columns of this block at once and those behind it together, in one large product.
        last = min(outer + _BLOCK, n)
        errors_BO = torch.empty_like(columns_NO[outer:last])
        for start in range(outer, last, GROUP):
            end = min(start + GROUP, last)
            block, errors = columns_NO[start:end], errors_BO[start - outer : end - outer]
            scales = choose(start, block)
            inverses = torch.where(scales != 0, 1 / scales, 0).to(block.dtype)
            for i, factors in enumerate(upper[start:end, start:end]):
                q = torch.mul(block[i], inverses[i]).round_().clamp_(LOW, HIGH)
                q_NO[start + i] = q
                torch.sub(block[i], q.mul_(scales[i]), out=errors[i]).div_(factors[i])
                block[i + 1 :].addr_(factors[i + 1 :], errors[i], alpha=-1)
            columns_NO[end:last].addmm_(upper[start:end, end:last].T, errors, alpha=-1)
        columns_NO[last:].addmm_(upper[outer:last, last:].T, errors_BO, alpha=-1)
    return q_NO


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse, more strongly damped where that is needed."""
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    # An input that is always 0 says nothing of its column, which is rounded to nearest.
    diagonal[diagonal == 0] = diagonal.mean().clamp(min=torch.finfo(hessian.dtype).tiny)
    step = damping * diagonal.mean()
    while True:
        diagonal += step
        # In reverse order, the inverse of the lower factor is the upper factor of the inverse.
        lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
        if not failed:
            lower = _inverse_of_lower(lower)  # what it was is let go: each of these may have a gigabyte
            if lower.amin().isfinite() and lower.amax().isfinite() and (lower.diagonal() > 0).all():
                return lower.flip(0, 1)
        step = 10 * step


def _inverse_of_lower(lower: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix, by halves: two thirds of the products of solving for it.

    Their sizes are those at which a matrix product is fast, too.
    """
    n, half = len(lower), len(lower) // 2
    if n <= _SOLVED_AT_ONCE:
        one = torch.eye(n, dtype=lower.dtype, device=lower.device)
        solved: Tensor = torch.linalg.solve_triangular(lower, one, upper=False)
        return solved
    inverse = torch.zeros_like(lower)
    inverse[:half, :half] = _inverse_of_lower(lower[:half, :half])
    inverse[half:, half:] = _inverse_of_lower(lower[half:, half:])
    product = lower[half:, :half] @ inverse[:half, :half]
    torch.mm(inverse[half:, half:], product, out=inverse[half:, :half]).neg_()
    return inverse


def _filled(block: Tensor) -> Tensor:
    """``[N, up to 32]`` to ``[N, 32]``, with zeros."""
    return torch.nn.functional.pad(block, (0, GROUP - block.shape[1]))
