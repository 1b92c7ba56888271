"""What the rotation before the down projections adds to a step: the same weights run with and without it.

    python -m benchmarks.rotation --threads 2

The model has random 4-bit weights in a true shape. The two take turns; a row has the best time of a step of
each, and what the kernel takes alone for all layers and tokens, on one thread and a row in the nearest cache.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.kernels import packed
from benchmarks.machine import load_average
from benchmarks.random_checkpoint import SHAPES
from puna import _native
from puna.engine.native_parts import new_cache, new_model
from puna.models.config import ModelConfig
from puna.models.packed import PackedMatrix, PackedModel, weight_format

_CONTEXT = 256
_BLOCK = 16


def random_model(config: ModelConfig) -> PackedModel:
    """Weights as the official quantized models have them, of no sense."""
    matrices: dict[str, PackedMatrix] = {}
    norms = {}
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 1:
            norms[name] = np.ones(shape, np.float32)
            continue
        format = weight_format(name, "int4_group32_f32", "int4")
        matrices[name] = PackedMatrix(format, *shape, packed(format, *shape))
    return PackedModel(config, matrices, norms)


def step_of(model: PackedModel, runner: _native.Runner, n_tokens: int) -> Callable[[], object]:
    """A step of the last `n_tokens` of a context."""
    tokens = np.arange(n_tokens, dtype=np.int32)
    slices = np.array([[n_tokens, _CONTEXT - n_tokens]], np.int64)
    table = np.arange(_CONTEXT // _BLOCK, dtype=np.int32)[None]
    last = np.array([n_tokens - 1], np.int64)
    return lambda: runner.logits(tokens, slices, table, last)


def best_of(steps: Sequence[Callable[[], object]], passes: int) -> list[float]:
    """Seconds of each, the best of some turns."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(passes):
        for step, taken in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in seconds]


def rotation_seconds(width: int, passes: int) -> float:
    """Of one row: what the kernel takes beyond what the call and the copies around it do."""
    x = np.random.default_rng(0).standard_normal(width).astype(np.float32)
    isa = _native.isa()

    def many(block: int) -> Callable[[], object]:
        return lambda: [_native.kernels.rotate_blocks(isa, x, block) for _ in range(500)]

    # A rotation of blocks of 1 is a pass over the row: what it takes is counted with the call, to its favour.
    whole, none = best_of([many(width), many(1)], passes)
    return (whole - none) / 500


def run(shape: str, threads: int, passes: int) -> None:
    """Print the table."""
    with_it = random_model(replace(SHAPES[shape], has_down_rotation=True))
    without = PackedModel(SHAPES[shape], with_it.matrices, with_it.norms)
    runners = []
    for model in (with_it, without):
        cache = new_cache(model, _CONTEXT // _BLOCK, "f16")
        runners.append((model, _native.Runner(new_model(model), cache, threads)))
    alone = rotation_seconds(with_it.config.ffn_dim, passes) * with_it.config.n_layers
    print("| tokens a step | with, ms | without, ms | more | the kernels alone, ms |")
    print("|---|---|---|---|---|")
    for n_tokens in (1, 8, _CONTEXT):
        steps = [step_of(model, runner, n_tokens) for model, runner in runners]
        rotated, plain = best_of(steps, passes if n_tokens > _BLOCK else 4 * passes)
        print(
            f"| {n_tokens} | {1e3 * rotated:.2f} | {1e3 * plain:.2f} | {100 * (rotated / plain - 1):.1f} % "
            f"| {1e3 * alone * n_tokens:.2f} |",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama3.2-1b")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=10)
    options = parser.parse_args(arguments)
    print(f"{_native.isa()}, {options.threads} threads, load average {load_average()}\n")
    run(options.shape, options.threads, options.passes)


if __name__ == "__main__":
    main()
