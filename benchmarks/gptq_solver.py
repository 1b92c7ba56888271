"""GPTQ's solver on its own beside llm-compressor's, on matrices of Llama's shapes.

    pip install llmcompressor
    python -m benchmarks.gptq_solver --threads 2

Inputs are normal, of different sizes, and depend on one another. Both solvers take the weights and their
Hessian and round to 4 bits in groups of 32; llm-compressor's gets scales that were chosen before, Puna's
chooses them as it goes, by the same rule and by the one that is its default. A cell has the best seconds of
some passes, in turn, and behind it what is left of the error of rounding to nearest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.machine import load_average
from benchmarks.options import positive
from puna.nn.rounding import GROUP, group_scales, round_groups
from puna.quantize.gptq import gptq

MATRICES = {"query, key, value": (3072, 2048), "gate, up": (16384, 2048), "down": (2048, 8192)}
_RULE = "no-clipping"

Solver = Callable[[Tensor, Tensor], Tensor]
"""Weight ``[out, in]`` and Hessian ``[in, in]`` to the rounded weight."""


def problem(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Weights, and the Hessian of inputs whose columns depend on one another and differ in size."""
    generator = torch.Generator().manual_seed(columns)
    n = 2 * columns
    shared = torch.randn(n, columns // 16, generator=generator) @ torch.randn(
        columns // 16, columns, generator=generator
    )
    sizes = torch.logspace(-1, 0.5, columns)[torch.randperm(columns, generator=generator)]
    inputs = (0.1 * shared + torch.randn(n, columns, generator=generator)) * sizes
    return 0.02 * torch.randn(rows, columns, generator=generator), inputs.T @ inputs / n


def puna(rule: str) -> Solver:
    """Puna's own solver with a rule for scales."""

    def solve(weight: Tensor, hessian: Tensor) -> Tensor:
        return dequantized(*gptq(weight, hessian, rule=rule))

    return solve


def dequantized(q: Tensor, scales: Tensor) -> Tensor:
    """The weights that integers and scales stand for."""
    return q * scales.repeat_interleave(GROUP, 1)


def llm_compressor() -> Solver | None:
    """The peer's; None where it is not installed."""
    try:
        from compressed_tensors.quantization import QuantizationArgs
        from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
    except ImportError:
        return None
    args = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)

    def solve(weight: Tensor, hessian: Tensor) -> Tensor:
        scales = group_scales(weight, _RULE)[None]
        # It works in the tensors that it is given.
        rounded, _, _ = quantize_weight(
            weight.clone()[None], hessian.clone()[None], scales, torch.zeros_like(scales), None, args
        )
        first: Tensor = rounded[0]
        return first

    return solve


def error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """The squared error of outputs."""
    off = rounded - weight
    return float((off @ hessian * off).sum())


def measure(
    solvers: dict[str, Solver], rows: int, columns: int, passes: int
) -> dict[str, tuple[float, float]]:
    """Best seconds of each solver, and its error as a share of that of rounding to nearest."""
    weight, hessian = problem(rows, columns)
    scales = group_scales(weight, _RULE)
    nearest = error(weight, dequantized(round_groups(weight, scales), scales), hessian)
    best: dict[str, tuple[float, float]] = {}
    for _ in range(passes):
        for name, solve in solvers.items():
            start = time.perf_counter()
            rounded = solve(weight, hessian)
            seconds = time.perf_counter() - start
            least = min(seconds, best[name][0]) if name in best else seconds
            best[name] = least, error(weight, rounded, hessian) / nearest
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line a matrix."""
    parser = argparse.ArgumentParser(description="GPTQ's solver beside llm-compressor's.")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--passes", type=positive, default=3)
    parser.add_argument("--divide", type=positive, default=1, help="make the matrices smaller by so much")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    solvers: dict[str, Solver] = {f"puna, {rule}": puna(rule) for rule in (_RULE, "search")}
    peer = llm_compressor()
    if peer is None:
        print("llm-compressor is not installed: pip install llmcompressor")
    else:
        solvers["llm-compressor"] = peer
    print(f"load average {load_average():.2f}")
    for name, (rows, columns) in MATRICES.items():
        found = measure(solvers, rows // options.divide, columns // options.divide, options.passes)
        cells = "   ".join(f"{who}: {seconds:.2f} s {left:.3f}" for who, (seconds, left) in found.items())
        print(f"{name:18} {cells}")


if __name__ == "__main__":
    main()
