"""Puna and its peers side by side: builds the models, runs everything in turn, writes a table and JSON.

    python -m benchmarks.compare --folder FOLDER --prompt-tokens 64 512 2048 --repeats 3

The runs of one round go through all engines before the next round begins, so that a drift of the machine
meets all of them; the table gives medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.engines import version_of
from benchmarks.random_checkpoint import RandomCheckpoint
from puna.evaluate.machine import this_machine
from puna.models.packed import write_checkpoint

_MEASURES = ("prefill_tok_s", "decode_tok_s", "peak_rss_mb")


def build(shape: str, folder: Path) -> list[tuple[str, str, Path]]:
    """Make the files that are not there yet: engine, format and path of everything to be measured."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = RandomCheckpoint(shape)
    candidates = []
    for wanted in ("int4", "bf16"):
        path = folder / f"{shape}-{wanted}"
        if not path.exists():
            write_checkpoint(checkpoint, path, wanted)
        candidates.append(("puna", wanted, path))
    if find_spec("llama_cpp") is not None:
        from benchmarks.gguf_file import quantize_q4_0, write_bf16

        bf16, q4_0 = folder / f"{shape}-bf16.gguf", folder / f"{shape}-q4_0.gguf"
        if not bf16.exists():
            write_bf16(checkpoint, bf16)
        if not q4_0.exists():
            quantize_q4_0(bf16, q4_0)
        candidates += [
            ("llama.cpp", "Q4_0", q4_0),
            ("llama.cpp flash", "Q4_0", q4_0),
            ("llama.cpp", "BF16", bf16),
        ]
    return candidates


def run(engine: str, path: Path, prompt_tokens: int, new_tokens: int, threads: int) -> dict[str, float]:
    """Measure once, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.worker", engine, str(path)]
    command += ["--prompt-tokens", str(prompt_tokens), "--new-tokens", str(new_tokens)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{engine} failed on {path}:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the models and results.json")
    parser.add_argument("--shape", default="llama3.2-1b")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", nargs="+", default=["int4", "Q4_0", "bf16", "BF16"])
    arguments = parser.parse_args()
    candidates = [c for c in build(arguments.shape, arguments.folder) if c[1] in arguments.formats]
    rows: list[dict[str, Any]] = []
    for n in arguments.prompt_tokens:
        rounds = [
            [run(engine, path, n, arguments.new_tokens, arguments.threads) for engine, _, path in candidates]
            for _ in range(arguments.repeats)
        ]
        for i, (engine, wanted, _) in enumerate(candidates):
            runs = [results[i] for results in rounds]
            medians = {key: statistics.median(r[key] for r in runs) for key in _MEASURES}
            rows.append({"engine": engine, "format": wanted, "prompt_tokens": n, **medians, "runs": runs})
            print_row(rows[-1])
    versions = {engine: version_of(engine) for engine, _, _ in candidates}
    report = {
        "shape": arguments.shape,
        "threads": arguments.threads,
        "machine": asdict(this_machine()),
        "versions": versions,
        "rows": rows,
    }
    (arguments.folder / "results.json").write_text(json.dumps(report, indent=2) + "\n")


def print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['engine']:16} {row['format']:5} prompt {row['prompt_tokens']:6}  "
        f"prefill {row['prefill_tok_s']:7.1f} tok/s  decode {row['decode_tok_s']:6.2f} tok/s  "
        f"peak {row['peak_rss_mb']:6.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
