"""GPTQ: rounding a matrix column by column, each error made up for by the columns that follow.

Source: Frantar et al. 2022, https://arxiv.org/abs/2210.17323, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from puna.nn.rounding import GROUP, group_scales, round_groups, scale_of_groups

__all__ = ["gptq"]


def gptq(
    weight: Tensor, hessian: Tensor, *, rule: str, damping: float = 0.01, act_order: bool = False
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

    Returns:
        Whole numbers -8 to 7 in float32 ``[out, in]``, and scales ``[out, ceil(in / 32)]``.
    """
    w, n = weight.to(hessian.dtype, copy=True), weight.shape[1]
    diagonal = hessian.diagonal()
    order = torch.argsort(diagonal, descending=True) if act_order else torch.arange(n)
    upper = _factor(hessian[order][:, order], damping)
    costs = upper.diagonal().square().reciprocal()
    q = torch.empty_like(w, dtype=torch.float32)
    if act_order:
        scales = group_scales(w, rule, diagonal.float())
        columns = scales.repeat_interleave(GROUP, 1)[:, :n][:, order]
        w = w[:, order]
    else:
        scales = torch.empty(len(w), -(-n // GROUP))
    for start in range(0, n, GROUP):
        end = min(start + GROUP, n)
        block = w[:, start:end]
        if not act_order:
            filled, weights = _filled(block), _filled(costs[None, start:end])
            scales[:, start // GROUP, None] = scale_of_groups(filled, rule, weights.float())
            columns_here = scales[:, start // GROUP, None].expand(-1, end - start)
        else:
            columns_here = columns[:, start:end]
        errors = torch.empty_like(block)
        for i in range(end - start):
            column = block[:, i]
            q[:, start + i] = round_groups(column[:, None], columns_here[:, i, None])[:, 0]
            rounded = q[:, start + i] * columns_here[:, i]
            errors[:, i] = (column - rounded) / upper[start + i, start + i]
            block[:, i:] -= errors[:, i, None] * upper[start + i, start + i : end]
        w[:, end:] -= errors @ upper[start:end, end:]
    return q[:, torch.argsort(order)], scales


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse, more strongly damped where that is needed."""
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    # An input that is always 0 says nothing of its column, which is rounded to nearest.
    diagonal[diagonal == 0] = diagonal.mean().clamp(min=torch.finfo(hessian.dtype).tiny)
    step = damping * diagonal.mean()
    while True:
        diagonal += step
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            upper: Tensor = torch.linalg.cholesky_ex(inverse, upper=True).L
            if upper.isfinite().all() and (upper.diagonal() > 0).all():
                return upper
        step = 10 * step


def _filled(block: Tensor) -> Tensor:
    """``[N, up to 32]`` to ``[N, 32]``, with zeros."""
    return torch.nn.functional.pad(block, (0, GROUP - block.shape[1]))
