"""Rounding weights to the grids of the native engine: integers with a scale a group or a row.

Blocks of a Llama are held as 4-bit integers in groups of 32 columns with a float16 scale, embedding and
head as 8-bit integers with a float32 scale a row: ``csrc/pack`` packs the same. How a group's scale is
chosen is a *rule*, see `RULES`; what comes out is loadable whatever the rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from puna.errors import ConfigError, nearest

__all__ = [
    "DEFAULT_RULE",
    "GROUP",
    "HIGH",
    "LOW",
    "RULES",
    "group_scales",
    "round_groups",
    "round_rows",
    "scale_of_groups",
]

GROUP = 32
LOW, HIGH = -8.0, 7.0
_CHUNK = 1 << 20  # elements that a rule sees at a time, so that it works within the processor's cache

Rule = Callable[[Tensor, Tensor | None], Tensor]
"""Groups ``[N, 32]`` float32 and how much an error in each weight counts (or None): scales ``[N, 1]``."""


def _top(groups: Tensor) -> Tensor:
    return groups.abs().amax(-1, keepdim=True)


def _half(scale: Tensor) -> Tensor:
    return scale.half().float()


def _nearest(groups: Tensor, scale: Tensor) -> Tensor:
    inverse = torch.where(scale != 0, 1 / scale, 0)
    return (groups * inverse).round_().clamp_(LOW, HIGH)


def _error(groups: Tensor, scale: Tensor, importance: Tensor | None, power: float = 2) -> Tensor:
    off = _nearest(groups, scale).mul_(scale).sub_(groups)
    # Three times as fast as `pow_`; no error is the logarithm's minus infinity, and 0 again.
    off = off.square_() if power == 2 else off.abs_().log2_().mul_(power).exp2_()
    if importance is not None:
        off.mul_(importance)
    return off.sum(-1, keepdim=True)


def _best(groups: Tensor, scales: list[Tensor], importance: Tensor | None) -> Tensor:
    """Of several scales a group, on the float16 grid, the one of the least error; ties to the first."""
    best = _half(scales[0])
    least = _error(groups, best, importance)
    for scale in map(_half, scales[1:]):
        error = _error(groups, scale, importance)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _range(groups: Tensor, importance: Tensor | None) -> Tensor:
    return _top(groups) / 7.5


def _no_clipping(groups: Tensor, importance: Tensor | None) -> Tensor:
    return torch.maximum(groups.amin(-1, keepdim=True) / LOW, groups.amax(-1, keepdim=True) / HIGH)


def _signed(groups: Tensor, importance: Tensor | None) -> Tensor:
    return groups.gather(-1, groups.abs().argmax(-1, keepdim=True)) / LOW


def _refine(groups: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
    """The least-squares scale for the integers that a scale gives."""
    q = _nearest(groups, scale)
    weighted = q if importance is None else q * importance
    bottom = (weighted * q).sum(-1, keepdim=True)
    return torch.where(bottom > 0, (weighted * groups).sum(-1, keepdim=True) / bottom, scale)


def _least_squares(groups: Tensor, importance: Tensor | None) -> Tensor:
    scale = _top(groups) / 8
    for _ in range(20):
        scale = _refine(groups, scale, importance)
    return scale


def _clip(groups: Tensor, importance: Tensor | None) -> Tensor:
    top, counts = _top(groups), 1.0 if importance is None else importance.amin(-1, keepdim=True)
    best = _half(top / 7)
    least = _error(groups, best, importance, 2.4)
    for i in range(1, 80):
        scale = _half(top * (1 - i / 100) / 7)
        # The largest weight alone loses as much, and more with each smaller scale: fewer than half are tried.
        at_least = counts * (top + LOW * scale).clamp_(min=0) ** 2.4
        if (at_least >= 1.001 * least).all():
            break
        error = _error(groups, scale, importance, 2.4)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _search(groups: Tensor, importance: Tensor | None) -> Tensor:
    signed = _signed(groups, importance)  # the largest weight on -8: one step more than 7 to that side
    scales = [8 * signed / (6.8 + 0.2 * i) for i in range(20)] + [
        -8 * signed / (6.8 + 0.2 * i) for i in range(20)
    ]
    best = _best(groups, scales, importance)
    return _best(groups, [best, _refine(groups, best, importance)], importance)


RULES: dict[str, Rule] = {
    "range": _range,
    "no-clipping": _no_clipping,
    "signed": _signed,
    "least-squares": _least_squares,
    "clip": _clip,
    "search": _search,
}
"""How a group's scale is chosen.

==============  ===========================================================================================
range           largest magnitude over 7.5: torchao's default for 8da4w
no-clipping     the smallest scale that clips nothing: torchao's SYMMETRIC_NO_CLIPPING_ERR
signed          the largest magnitude lies on -8, the scale may be negative: as in GGUF's Q4_0
least-squares   twenty rounds of the scale that fits the integers best: HQQ's scale only
clip            of 80 scales from the largest magnitude over 7 downwards, the least error to the power 2.4
search          of 40 scales of both signs, the least squared error, then fitted to its integers once more
==============  ===========================================================================================
"""
DEFAULT_RULE = "signed"


def scale_of_groups(groups: Tensor, rule: str = DEFAULT_RULE, importance: Tensor | None = None) -> Tensor:
    """Choose scales of groups.

    Args:
        groups: weights ``[N, 32]``, any N.
        rule: a name of `RULES`.
        importance: how much a squared error in each weight counts, ``[N, 32]`` or a row of it; None: all
            the same. Only rules that measure an error look at it.

    Returns:
        Scales ``[N, 1]``, float32 numbers on the grid of float16; not finite where weights are not, or
        are too large.

    Raises:
        ConfigError: there is no such rule.
    """
    if rule not in RULES:
        raise ConfigError(f"scale rule {rule!r} is unknown; {nearest(rule, RULES)}")
    step = _CHUNK // GROUP
    parts = []
    for start in range(0, len(groups), step):
        part = None
        if importance is not None:
            part = importance[start : start + step] if len(importance) == len(groups) else importance
        parts.append(_half(RULES[rule](groups[start : start + step].float(), part)))
    return torch.cat(parts) if parts else groups.new_zeros((0, 1))


def group_scales(weight: Tensor, rule: str = DEFAULT_RULE, importance: Tensor | None = None) -> Tensor:
    """Choose the scales of a matrix.

    Args:
        weight: ``[out, in]``; columns beyond the last whole group form a shorter one.
        rule: a name of `RULES`.
        importance: how much a squared error in each column counts, ``[in]``; None: all the same.

    Returns:
        ``[out, ceil(in / 32)]``, float32 numbers on the grid of float16.

    Raises:
        ConfigError: there is no such rule.
    """
    groups = _grouped(weight)
    if importance is not None:
        importance = _grouped(importance[None]).expand(groups.shape).reshape(-1, GROUP)
    return scale_of_groups(groups.reshape(-1, GROUP), rule, importance).reshape(groups.shape[:2])


def round_groups(weight: Tensor, scales: Tensor) -> Tensor:
    """Round a matrix to the 4-bit grid.

    Args:
        weight: ``[out, in]``.
        scales: see `group_scales`.

    Returns:
        Whole numbers -8 to 7 in float32, ``[out, in]``; times its scale each is the quantized weight.
    """
    q = _nearest(_grouped(weight).float(), scales[..., None])
    return q.flatten(1)[:, : weight.shape[1]]


def round_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8 bits with a scale a row, its largest magnitude over 127.

    Args:
        weight: ``[out, in]``.

    Returns:
        Whole numbers -127 to 127 in float32, ``[out, in]``, and scales ``[out, 1]``; both are 0 where a scale
        would be no normal float.
    """
    scales = _top(weight.float()) / 127
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 0, scales)
    inverse = torch.where(scales > 0, 1 / scales, 0)
    return (weight.float() * inverse).round_().clamp_(-127, 127), scales


def _grouped(weight: Tensor) -> Tensor:
    """``[out, in]`` to ``[out, groups, 32]``, a shorter last group filled up with zeros."""
    return pad(weight, (0, -weight.shape[1] % GROUP)).reshape(len(weight), -1, GROUP)
