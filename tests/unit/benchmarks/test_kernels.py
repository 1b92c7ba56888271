"""The table of the kernels' speeds: that it is whole and its two figures agree, never how high they are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from benchmarks.kernels import FORMATS, Matrix, main, measure, packed

from puna import _native

ISAS = [name for name, is_supported in _native.isas() if is_supported]


@pytest.mark.parametrize("format", FORMATS)
def test_repeated_weights_are_what_packing_them_gives(format: str) -> None:
    weights = packed(format, 48, 100)
    assert weights.size == _native.packed_bytes(format, 48, 100)
    rows = np.asarray(_native.unpack(format, weights, 48, 100))
    assert np.array_equal(rows[:16], rows[32:])
    assert 0.01 < rows.std() < 0.03


def test_bytes_and_products_are_of_the_same_second() -> None:
    rate = measure(ISAS[-1], "bf16", Matrix("small", 32, 64), 9, 1, 1)
    # 2 bytes a weight, each used for nine rows.
    assert rate.n_bytes * 9 == pytest.approx(2 * rate.products)


def test_the_table_has_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "--formats",
            "int8_channel",
            "--matrices",
            "output",
            "--rows",
            "64",
            "--threads",
            "2",
            "--passes",
            "1",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    cell = r"\d+\.\d \(\d+\.\d\)"
    for isa in ISAS[1:] or ISAS:
        pattern = rf"\| int8_channel \| output \| {isa} \| {cell} \|"
        assert sum(re.fullmatch(pattern, line) is not None for line in lines) == 1
    assert re.fullmatch(r"memory: \d+\.\d GB/s by 2 threads that only read", lines[-1])


def test_arguments_out_of_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "0"])
    assert "must be 1 or more" in capsys.readouterr().err
    with pytest.raises(_native.NativeError, match="number of threads"):
        _native.kernels.matmul_rate(
            "scalar", "f32", packed("f32", 16, 64), 16, 64, np.zeros((1, 64), np.float32), 0, 1
        )
