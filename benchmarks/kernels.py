"""Each matrix kernel on its own, of each instruction set that this machine has, beside its memory's speed.

    python -m benchmarks.kernels --threads 2

The matrices are those of Llama 3.2 1B. Up to eight rows, which wait for the weights, multiply a matrix that
is repeated until no cache holds it; more rows multiply it as it is. A cell has billions of products a second,
and behind it how many gigabytes of weights are read in that second. A second is one of processor time of the
slowest thread, so that other programs take little from it; all figures are the best of some passes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import load_average
from puna import _native

_FEW_ROWS = 8
_FAR_FROM_CACHES = 1 << 28


@dataclass(frozen=True)
class Matrix:
    """Weights of a layer that share their input."""

    name: str
    rows: int
    columns: int


MATRICES = (
    Matrix("query, key, value", 3072, 2048),
    Matrix("output", 2048, 2048),
    Matrix("gate, up", 16384, 2048),
    Matrix("down", 2048, 8192),
    Matrix("head", 128256, 2048),
)
FORMATS = ("int4_group32", "int4_group32_f32", "int8_group32", "int8_channel", "bf16", "f32")


def packed(format: str, rows: int, columns: int) -> NDArray[np.uint8]:
    """Weights of any number of rows: sixteen random ones, packed and repeated."""
    values = 0.02 * np.random.default_rng(0).standard_normal((16, columns), np.float32)
    if format in ("f32", "bf16"):
        tile = _native.pack_values(format, values)
    elif format == "int8_channel":
        tile = _native.pack_channels(*_native.round_channels(values))
    elif format == "int4_group32_f32":
        q, bits = _native.round_groups(4, values)
        tile = _native.pack_groups_f32(q, np.asarray(bits).view(np.float16).astype(np.float32))
    else:
        tile = _native.pack_groups(
            format, *_native.round_groups(4 if format.startswith("int4") else 8, values)
        )
    return np.tile(tile, -(-rows // 16))


@dataclass(frozen=True)
class Rate:
    """What a kernel reaches: products, and bytes of weights, a second."""

    products: float
    n_bytes: float

    def __str__(self) -> str:
        return f"{self.products / 1e9:.1f} ({self.n_bytes / 1e9:.1f})"


def measure(isa: str, format: str, matrix: Matrix, n_rows: int, threads: int, passes: int) -> Rate:
    """Time one kernel on one matrix."""
    rows = -(-matrix.rows // 16) * 16
    if n_rows <= _FEW_ROWS:
        rows *= -(-_FAR_FROM_CACHES // _native.packed_bytes(format, rows, matrix.columns))
    weights = packed(format, rows, matrix.columns)
    x = np.random.default_rng(1).standard_normal((n_rows, matrix.columns), np.float32)
    rate = _native.kernels.matmul_rate(isa, format, weights, rows, matrix.columns, x, threads, passes)
    return Rate(rate, rate / (rows * matrix.columns * n_rows) * weights.size)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the machine's own rates and a table of every kernel."""
    isas = [name for name, is_supported in _native.isas() if is_supported]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--isas", nargs="+", choices=isas, default=isas[1:] or isas, metavar="ISA")
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=["int4_group32", "int8_channel", "bf16"]
    )
    names = [matrix.name for matrix in MATRICES]
    parser.add_argument("--matrices", nargs="+", choices=names, default=["gate, up", "down"], metavar="NAME")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 8, 64, 512])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args(arguments)
    if min(*options.rows, options.threads, options.passes, 1) < 1:
        parser.error("--rows, --threads and --passes must be 1 or more")
    if (load := load_average()) is not None:
        print(f"load average {load:.1f}: above {options.threads - 1} others were at work too\n")
    print("| format | matrix | kernel |" + "".join(f" {n} |" for n in options.rows))
    print("|---|---|---|" + "---|" * len(options.rows))
    for format in options.formats:
        for matrix in [m for m in MATRICES if m.name in options.matrices]:
            for isa in options.isas:
                rates = [
                    measure(isa, format, matrix, n, options.threads, options.passes) for n in options.rows
                ]
                cells = " | ".join(map(str, rates))
                print(f"| {format} | {matrix.name} | {isa} | {cells} |", flush=True)
    read = _native.read_rate(options.threads, _FAR_FROM_CACHES, options.passes)
    print(f"\nmemory: {read / 1e9:.1f} GB/s by {options.threads} threads that only read")


if __name__ == "__main__":
    main()
