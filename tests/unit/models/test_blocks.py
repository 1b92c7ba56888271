from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize as reference
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.blocks import bytes_of, dequantize, groups_of_32, known_dtypes

SMALL = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"]
DTYPES = [*SMALL, "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# In blocks; the last is decoded in several chunks, of which the last one is short.
SHAPES = [(1,), (1, 1), (3, 2), (17, 10), (600, 9)]


def random_bytes(dtype: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Any bytes at all, so that scales are infinite, NaN, denormal and negative too."""
    rng = np.random.default_rng(len(dtype) + sum(shape))
    n_bytes = bytes_of(dtype, shape)
    return rng.integers(0, 256, n_bytes, dtype=np.uint8).reshape(*shape[:-1], -1)


def test_every_type_is_tested() -> None:
    assert known_dtypes() == tuple(DTYPES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantize_equals_the_gguf_package(dtype: str, shape: tuple[int, ...]) -> None:
    shape = (*shape[:-1], shape[-1] * (32 if dtype in SMALL else 256))
    data = random_bytes(dtype, shape)
    with np.errstate(all="ignore"):
        expected = reference(data, gguf.GGMLQuantizationType[dtype])
    result = dequantize(dtype, data, shape)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert not np.shares_memory(result, data)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_equal_the_gguf_package(dtype: str) -> None:
    elements, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]]
    assert bytes_of(dtype, (5, elements * 3)) == 15 * n_bytes


@pytest.mark.parametrize("dtype", ["Q4_0", "Q8_0"])
def test_groups_are_the_exact_values(dtype: str) -> None:
    weights = np.random.default_rng(2).standard_normal((7, 96)).astype(np.float32)
    data = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[dtype])
    groups = groups_of_32(dtype, data, (7, 96))
    assert groups is not None
    integers, scales = groups
    assert (integers.dtype, integers.shape) == (np.int8, (7, 96))
    assert (scales.dtype, scales.shape) == (np.float16, (7, 3))
    values = integers.astype(np.float32) * scales.astype(np.float32).repeat(32, axis=1)
    np.testing.assert_array_equal(values, reference(data, gguf.GGMLQuantizationType[dtype]))
    if dtype == "Q4_0":
        assert (integers.min(), integers.max()) == (-8, 7)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q4_1", "Q5_0", "IQ4_NL"])
def test_other_types_have_no_groups(dtype: str) -> None:
    assert groups_of_32(dtype, random_bytes(dtype, (2, 32)), (2, 32)) is None


def test_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(
        CheckpointError, match=r"storage type IQ2_S is not read yet; known: F32, F16, BF16, Q4_0"
    ):
        bytes_of("IQ2_S", (2, 256))


def test_row_that_is_no_whole_number_of_blocks() -> None:
    with pytest.raises(CheckpointError, match="Q4_0 needs rows of a multiple of 32 elements, got 33"):
        bytes_of("Q4_0", (32, 33))


def test_wrong_number_of_bytes() -> None:
    with pytest.raises(CheckpointError, match=r"a Q8_0 tensor of shape \(2, 32\) needs 68 bytes, got 67"):
        dequantize("Q8_0", np.zeros(67, np.uint8), (2, 32))
