"""The layout of the official quantized models in its true shape: written, read back and run, bit for bit.

A model of random weights becomes a Puna checkpoint, that one Meta's files, and those are opened again: the
logits of a few tokens must be the first model's to the last bit.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.random_checkpoint import SHAPES, RandomCheckpoint
from puna.engine.native import NativeEngine
from puna.models.checkpoint import Checkpoint
from puna.models.meta_writer import write_meta_quantized
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, write_checkpoint
from puna.tokens import Tokenizer

ADDED: dict[str, dict[str, Any]] = {
    "spinquant": {"has_down_rotation": True},
    "qlora": {"lora_rank": 16, "lora_scale": 2.0},
}
_TOKENS = [128000, 791, 94776, 374]


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what:<42} {time.perf_counter() - start:6.1f} s", flush=True)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def logits_of(checkpoint: Checkpoint) -> NDArray[np.float32]:
    engine = NativeEngine(pack_checkpoint(checkpoint), Tokenizer(checkpoint.vocabulary()), context_tokens=64)
    logits = np.array(engine.logits(_TOKENS))
    engine.close()
    return logits


def random_model(shape: str, method: str) -> RandomCheckpoint:
    """Random weights of a shape, with what a method adds to it."""
    model = RandomCheckpoint(shape)
    model.config = replace(model.config, **ADDED[method])
    shapes = model.config.tensor_shapes()
    model.dtypes = {name: "BF16" if len(dims) == 2 else "F32" for name, dims in shapes.items()}
    return model


def run(shape: str, method: str, folder: Path) -> None:
    """Go round once.

    Raises:
        SystemExit: the bits differ.
    """
    with timed("quantized to a Puna checkpoint"):
        write_checkpoint(random_model(shape, method), folder / "puna", "int4")
    with timed("written in Meta's layout"):
        write_meta_quantized(open_checkpoint(folder / "puna"), folder / "meta")
    with timed("logits of the Puna checkpoint"):
        expected = logits_of(open_checkpoint(folder / "puna"))
    with timed("Meta's layout opened, packed and run"):
        found = logits_of(open_checkpoint(folder / "meta"))
    for name in ("puna", "meta"):
        print(f"{name + ' checkpoint':<42} {size_of(folder / name) / 2**20:6.0f} MiB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{'peak memory of all this':<42} {peak:6.0f} MiB")
    if not np.array_equal(found, expected):
        raise SystemExit("the logits differ")
    print(f"the same bits in {found.size:,} logits of {len(_TOKENS)} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama3.2-1b")
    parser.add_argument("--method", choices=sorted(ADDED), default="spinquant")
    parser.add_argument("--folder", type=Path, help="where to work; 4 GB are needed for the 1B")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run(options.shape, options.method, Path(folder))


if __name__ == "__main__":
    main()
