"""Kernels: each instruction set against the scalar one bit for bit, the scalar one against float64."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from puna import _native

FORMATS = ("f32", "bf16", "int8_channel", "int8_group32", "int4_group32", "int4_group32_f32")
ISAS = [name for name, is_supported in _native.isas() if is_supported]
SHAPES = [
    (rows, columns, n)
    for rows in (1, 15, 16, 17, 100)
    for columns in (1, 32, 63, 64, 65, 576)
    for n in (1, 2, 5, 55)  # from 16 on there are paths of their own
]

# |sum - exact| <= columns x eps x sum of |products|; the mean of |products| here is about 0.64.
F32_EPS = float(np.finfo(np.float32).eps)


def pack(format: str, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    if format in ("f32", "bf16"):
        return _native.pack_values(format, values)
    if format == "int8_channel":
        return _native.pack_channels(*_native.round_channels(values))
    if format == "int4_group32_f32":
        q, bits = _native.round_groups(4, values)
        return _native.pack_groups_f32(q, np.asarray(bits).view(np.float16).astype(np.float32) * 1.0001)
    return _native.pack_groups(format, *_native.round_groups(4 if format.startswith("int4") else 8, values))


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(np.asarray(a).view(np.int32), np.asarray(b).view(np.int32)))


def dequantized_rows(x: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = [_native.kernels.quantize("scalar", row) for row in x]
    return np.stack([(np.asarray(q, np.float64) - zero) * scale for q, scale, zero in rows])


def as_multiplied(format: str, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The activations that the engine multiplies with weights of this format."""
    if format.startswith("int"):
        return dequantized_rows(x)
    return x.astype(np.float64) if format == "f32" else rounded_to_bf16(x).astype(np.float64)


def rounded_to_bf16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(x).bfloat16().float().numpy()


@pytest.mark.parametrize("format", FORMATS)
def test_products_agree_bit_for_bit_and_with_float64(format: str) -> None:
    for rows, columns, n in SHAPES:
        weights, x = random(rows, columns), random(n, columns, seed=1)
        packed = pack(format, weights)
        exact_weights = np.asarray(_native.unpack(format, packed, rows, columns), np.float64)
        exact_x = as_multiplied(format, x)
        exact = exact_x @ exact_weights.T
        bound = 4 * columns * F32_EPS * (np.abs(exact_x) @ np.abs(exact_weights).T + 1)
        scalar = _native.kernels.matmul("scalar", format, packed, rows, columns, x)
        error = np.abs(scalar - exact)
        assert (error <= bound).all(), f"{format} {rows}x{columns}, {n} rows: error {error.max()}"
        for isa in ISAS:
            y = _native.kernels.matmul(isa, format, packed, rows, columns, x)
            assert same_bits(y, scalar), f"{isa} differs from scalar: {format} {rows}x{columns}, {n} rows"
            one = [_native.kernels.matmul(isa, format, packed, rows, columns, x[i : i + 1]) for i in range(n)]
            assert same_bits(np.concatenate(one), scalar), f"{isa}: rows alone and together differ"


def test_every_isa_of_this_build_is_named() -> None:
    names = [name for name, _ in _native.isas()]
    missing = [name for name in names if name not in ISAS]
    print(f"not exercised on this machine: {missing or 'none'}")
    assert names[0] == "scalar"
    assert _native.isa() in ISAS


@pytest.mark.parametrize("isa", ISAS)
def test_exp_is_accurate(isa: str) -> None:
    x = np.linspace(-87.2, 88, 200_001).astype(np.float32)
    y = np.asarray(_native.kernels.exp(isa, x), np.float64)
    exact = np.exp(x.astype(np.float64))
    # The polynomial's truncation and rounding: 2 units in the last place.
    assert (np.abs(y - exact) <= 2 * F32_EPS * exact).all()
    special = np.array([-np.inf, -88, 0, np.nan], np.float32)
    assert np.array_equal(_native.kernels.exp(isa, special), [0, 0, 1, np.nan], equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
def test_rms_norm(isa: str) -> None:
    for n in (2, 16, 17, 576):
        x, gain = random(n), random(n, seed=1)
        exact = x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).mean() + 1e-5) * gain
        y = _native.kernels.rms_norm(isa, x, gain, 1e-5)
        np.testing.assert_allclose(y, exact, rtol=2e-6, atol=1e-7)
        assert same_bits(y, _native.kernels.rms_norm("scalar", x, gain, 1e-5))


def sylvester(n: int) -> NDArray[np.float64]:
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16, 32, 64, 512, 8192])
def test_the_hadamard_rotation_agrees_bit_for_bit_and_with_float64(block: int) -> None:
    x = random(3 * block, seed=block)
    # The matrix is the Kronecker product of two smaller ones.
    left = sylvester(min(block, 64))
    right = sylvester(block // len(left))
    values = x.astype(np.float64).reshape(3, len(left), len(right))
    exact = (left @ values @ right).reshape(-1) / np.sqrt(block)
    # Each level rounds once, and the factor twice: of numbers that are as large as the row at most.
    size = np.abs(x).astype(np.float64).reshape(3, block).sum(1).repeat(block) / np.sqrt(block)
    scalar = np.asarray(_native.kernels.rotate_blocks("scalar", x, block))
    assert (np.abs(scalar - exact) <= (np.log2(block) + 2) * F32_EPS / 2 * size).all()
    for isa in ISAS:
        assert same_bits(_native.kernels.rotate_blocks(isa, x, block), scalar), isa


def test_a_rotation_needs_blocks_of_a_power_of_two() -> None:
    for n, block in ((12, 3), (12, 8), (12, 0), (12, -4)):
        with pytest.raises(_native.NativeError, match="a power of two that divides the length"):
            _native.kernels.rotate_blocks("scalar", random(n), block)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=200))
def test_activations_are_within_half_a_step(values: list[float]) -> None:
    x = np.array(values, np.float32)
    q, scale, zero = _native.kernels.quantize("scalar", x)
    steps = np.asarray(q, np.float64)
    # Half a step, and rounding of the value over a wide range.
    assert (np.abs((steps - zero) * scale - x) <= 0.5001 * scale + 1e-5 * np.abs(x)).all()
    for isa in ISAS:
        other = _native.kernels.quantize(isa, x)
        assert np.array_equal(other[0], q)
        assert other[1:] == (scale, zero)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_shows_in_every_output(bad: float) -> None:
    x, packed = random(1, 64), pack("int4_group32", random(16, 64))
    x[0, 40] = bad
    for isa in ISAS:
        assert np.isnan(_native.kernels.matmul(isa, "int4_group32", packed, 16, 64, x)).all()


sizes = st.integers(1, 90)


@settings(max_examples=50)
@given(sizes, sizes, st.sampled_from(["int4_group32", "int8_group32"]), st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack_of_groups(rows: int, columns: int, format: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = (-8, 8) if format == "int4_group32" else (-128, 128)
    q = rng.integers(low, high, (rows, columns), np.int8)
    scale = rng.standard_normal((rows, -(-columns // 32))).astype(np.float16)
    packed = _native.pack_groups(format, q, scale.view(np.uint16))
    values = q * np.repeat(scale.astype(np.float32), 32, axis=1)[:, :columns]
    assert np.array_equal(_native.unpack(format, packed, rows, columns), values)
    integers, halves = _native.unpack_groups(format, packed, rows, columns)
    assert np.array_equal(integers, q)
    assert np.array_equal(halves, scale.view(np.uint16))


@settings(max_examples=30)
@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack_of_groups_with_float32_scales(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (rows, columns), np.int8)
    scale = rng.standard_normal((rows, -(-columns // 32))).astype(np.float32)
    packed = _native.pack_groups_f32(q, scale)
    values = q * np.repeat(scale, 32, axis=1)[:, :columns]
    assert np.array_equal(_native.unpack("int4_group32_f32", packed, rows, columns), values)
    integers, scales = _native.unpack_groups_f32(packed, rows, columns)
    assert np.array_equal(integers, q)
    assert np.array_equal(scales, scale)


def test_float32_scales_that_float16_has_give_the_same_bits() -> None:
    q, bits = _native.round_groups(4, random(70, 130))
    x = random(20, 130, seed=1)
    narrow = _native.pack_groups("int4_group32", q, bits)
    wide = _native.pack_groups_f32(q, np.asarray(bits).view(np.float16).astype(np.float32))
    for isa in ISAS:
        y = _native.kernels.matmul(isa, "int4_group32_f32", wide, 70, 130, x)
        assert same_bits(y, _native.kernels.matmul(isa, "int4_group32", narrow, 70, 130, x))


@settings(max_examples=30)
@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack_of_values_and_channels(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    assert np.array_equal(_native.unpack("f32", pack("f32", values), rows, columns), values)
    rounded = rounded_to_bf16(values)
    assert np.array_equal(_native.unpack("bf16", pack("bf16", values), rows, columns), rounded)
    q = rng.integers(-128, 128, (rows, columns), np.int8)
    scale = rng.random(rows, np.float32)
    packed = _native.pack_channels(q, scale)
    assert np.array_equal(_native.unpack("int8_channel", packed, rows, columns), q * scale[:, None])
    integers, scales = _native.unpack_channels(packed, rows, columns)
    assert np.array_equal(integers, q)
    assert np.array_equal(scales, scale)


def test_rounding_beats_the_plain_rule() -> None:
    values = random(64, 256)
    q, bits = _native.round_groups(4, values)
    scale = np.asarray(bits).view(np.float16).astype(np.float32)
    error = ((q * np.repeat(scale, 32, axis=1) - values) ** 2).reshape(64, 8, 32).sum(axis=2)
    plain = np.abs(values).reshape(64, 8, 32).max(axis=2) / 7
    spread = np.repeat(plain, 32, axis=1)
    plain_error = ((np.clip(np.rint(values / spread), -8, 7) * spread - values) ** 2).reshape(64, 8, 32)
    # Only the rounding of a scale to float16 can make a group a little worse.
    assert (error <= plain_error.sum(axis=2) * 1.01).all()
    assert error.sum() < 0.9 * plain_error.sum()


def test_bad_arguments_are_refused_with_both_numbers() -> None:
    with pytest.raises(_native.NativeError, match="must be -8 to 7, got 8"):
        _native.pack_groups("int4_group32", np.full((1, 32), 8, np.int8), np.ones((1, 1), np.uint16))
    with pytest.raises(_native.NativeError, match="need 4096 bytes, got 5"):
        _native.unpack("bf16", np.zeros(5, np.uint8), 2, 65)
    with pytest.raises(_native.NativeError, match="need 2176 bytes, got 5"):
        _native.unpack_channels(np.zeros(5, np.uint8), 2, 65)
    with pytest.raises(_native.NativeError, match="must be -8 to 7, got -9"):
        _native.pack_groups_f32(np.full((1, 32), -9, np.int8), np.ones((1, 1), np.float32))
    with pytest.raises(_native.NativeError, match="need a scale for every 32 columns of every row"):
        _native.pack_groups_f32(np.zeros((2, 33), np.int8), np.ones((2, 1), np.float32))
    with pytest.raises(_native.NativeError, match="needs int4_group32 or int8_group32, got bf16"):
        _native.unpack_groups("bf16", np.zeros(4096, np.uint8), 2, 65)
    with pytest.raises(_native.NativeError, match="weight format 'q4' is unknown"):
        _native.packed_bytes("q4", 1, 1)
    with pytest.raises(_native.NativeError, match="not finite"):
        _native.round_groups(4, np.full((1, 32), np.nan, np.float32))
    with pytest.raises(_native.NativeError, match="a size overflows"):
        _native.packed_bytes("f32", 2**40, 2**40)


def run_with_isa(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PUNA_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_puna_isa_forces_a_path() -> None:
    for isa in ISAS:
        done = run_with_isa(isa, "from puna import _native; print(_native.isa())")
        assert done.stdout.strip() == isa, done.stderr
    done = run_with_isa("sse9", "from puna import _native; _native.isa()")
    assert done.returncode != 0
    assert (
        f"instruction set 'sse9' is unknown or not supported by this machine; available: {', '.join(ISAS)}"
        in (done.stderr)
    )
