"""Scale rules and rounding against loops over float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from puna import _native
from puna.errors import CheckpointError, ConfigError
from puna.nn.packed import pack_groups
from puna.nn.rounding import RULES, group_scales, round_groups, round_rows


def weights(rows: int = 6, columns: int = 96, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.logspace(-3, 1, rows)[:, None]


def half(x: float) -> float:
    return float(np.float16(x))


def nearest(w: float, scale: float) -> int:
    return max(-8, min(7, round(w / scale))) if scale else 0


def error(group: list[float], scale: float, power: float = 2.0) -> float:
    return sum(abs(w - nearest(w, scale) * scale) ** power for w in group)


def refined(group: list[float], scale: float) -> float:
    q = [nearest(w, scale) for w in group]
    bottom = sum(k * k for k in q)
    return sum(k * w for k, w in zip(q, group, strict=True)) / bottom if bottom else scale


def expected(rule: str, group: list[float]) -> float:
    top = max(map(abs, group))
    signed = max(group, key=abs) / -8
    match rule:
        case "range":
            return half(top / 7.5)
        case "no-clipping":
            return half(max(min(group) / -8, max(group) / 7))
        case "signed":
            return half(signed)
        case "least-squares":
            scale = top / 8
            for _ in range(20):
                scale = refined(group, scale)
            return half(scale)
        case "clip":
            tried = [half(top * (1 - i / 100) / 7) for i in range(80)]
            return min(tried, key=lambda s: error(group, s, 2.4))
    tried = [half(side * 8 * signed / (6.8 + 0.2 * i)) for side in (1, -1) for i in range(20)]
    best = min(tried, key=lambda s: error(group, s))
    return min(best, half(refined(group, best)), key=lambda s: error(group, s))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_its_definition(rule: str) -> None:
    w = weights()
    scales = group_scales(w, rule)
    for row in range(6):
        for g in range(3):
            group = w[row, 32 * g : 32 * (g + 1)].double().tolist()
            ours, theirs = float(scales[row, g]), expected(rule, group)
            # Two scales may be equally good to float32's eyes; then either will do.
            close = math.isclose(ours, theirs, rel_tol=2e-3)
            assert close or math.isclose(error(group, ours), error(group, theirs), rel_tol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_rounding_goes_to_the_nearest_of_the_grid(rule: str) -> None:
    w = weights(4, 80)  # a last group of 16
    scales = group_scales(w, rule)
    assert scales.shape == (4, 3)
    q = round_groups(w, scales)
    grid = torch.arange(-8, 8) * scales.repeat_interleave(32, 1)[:, :80, None]
    best = (grid - w[..., None]).abs().amin(-1)
    got = (q * scales.repeat_interleave(32, 1)[:, :80] - w).abs()
    torch.testing.assert_close(got, best, rtol=1e-4, atol=1e-7)


def test_the_search_is_never_worse_than_the_native_one() -> None:
    w = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    q, bits = _native.round_groups(4, w.numpy())
    native = torch.from_numpy(q) * torch.from_numpy(bits).view(torch.float16).float().repeat_interleave(32, 1)
    scales = group_scales(w, "search")
    ours = round_groups(w, scales) * scales.repeat_interleave(32, 1)
    squared = [(x - w).square().reshape(-1, 32).sum(1) for x in (ours, native)]
    assert float(squared[0].sum()) < 0.95 * float(squared[1].sum())


def test_importance_moves_the_error_to_where_it_counts_less() -> None:
    w, importance = weights(32, 64), torch.ones(64)
    importance[:4] = 1000
    plain, aware = group_scales(w, "search"), group_scales(w, "search", importance)

    def weighted(scales: torch.Tensor) -> torch.Tensor:
        off = round_groups(w, scales) * scales.repeat_interleave(32, 1) - w
        return (off.square() * importance).sum()

    assert weighted(aware) < 0.8 * weighted(plain)


def test_rows_are_rounded_as_the_native_library_does() -> None:
    w = weights()
    w[2] = 0
    q, scales = round_rows(w)
    native_q, native_scales = _native.round_channels(w.numpy())
    assert np.array_equal(q.numpy(), native_q)
    assert np.array_equal(scales[:, 0].numpy(), native_scales)


def test_rows_that_are_nearly_nothing_are_nothing() -> None:
    """Where one over the scale is infinite, zeros times it would be no numbers."""
    tiny = 127 * float(np.finfo(np.float32).tiny)
    w = weights()
    for row, largest in enumerate((1e-45, 1e-38, 3e-37, 0.99 * tiny, 1.01 * tiny)):
        w[row] = 0
        w[row, 3], w[row, 4] = largest, -largest / 2
    q, scales = round_rows(w)
    native_q, native_scales = _native.round_channels(w.numpy())
    assert np.array_equal(q.numpy(), native_q)
    assert np.array_equal(scales[:, 0].numpy(), native_scales)
    assert not scales[:4].any()
    assert not q[:4].any()
    assert q[4, 2:6].tolist() == [0, 127, -64, 0]
    w[1, 5] = math.nan
    assert round_rows(w)[1][1].isnan()


def test_zeros_stay_zeros() -> None:
    for rule in RULES:
        scales = group_scales(torch.zeros(2, 64), rule)
        assert not scales.any()
        assert not round_groups(torch.zeros(2, 64), scales).any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6])
def test_what_has_no_scale_is_refused(value: float) -> None:
    w = weights()
    w[3, 7] = value
    scales = group_scales(w)
    with pytest.raises(CheckpointError, match="row 3 of a matrix cannot be quantized"):
        pack_groups(round_groups(w, scales), scales)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="scale rule 'seek' is unknown"):
        group_scales(weights(), "seek")
