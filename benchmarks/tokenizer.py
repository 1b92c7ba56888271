"""Puna's tokenizer beside tiktoken and tokenizers: the same vocabulary and text, in the same run.

All encode with Llama 3's vocabulary, on one CPU; the ids are compared first. What a vocabulary costs to load,
in time and in resident memory, is measured in a process of its own each. Rounds alternate, and medians are
told, so that a machine that is busy for a while slows all. Needs ``pip install puna[bench]``.

    python -m benchmarks.tokenizer path/to/tokenizer.model --json result.json
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from puna.models.checkpoint import Vocabulary
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS, tokenizer_json_from_tiktoken
from puna.models.tokenizer_json import LLAMA3_PATTERN, TokenizerJson
from puna.tokens import Tokenizer

WORDS = """
the of and llama grass mountain because understand people through language tokenizer der die und Gebirge
Übersetzung verstehen la montaña porque año les élèves étaient पहाड़ भाषा समझना ภูเขา ภาษา 山 語言 理解 языка
понимать 1024 3.14159 2024-09-24 🦙 🏔️
"""
CODE = 'def encode(text: str) -> list[int]:\n    return [ids[t] for t in split(text)]  # {"a": [1, 2]}\n'
MB = 1e6
# Under the length at which Meta's reference, and so Puna, cuts a text, which the libraries do not.
MAX_CHARACTERS = 390_000

Encode = Callable[[str], list[int]]


def mixed_text(n_bytes: int) -> str:
    """Prose in several scripts, numbers, emoji and code: the same text every time."""
    choose, words = random.Random(1), WORDS.split()
    parts: list[str] = []
    length = 0
    while length < n_bytes:
        prose = " ".join(choose.choices(words, k=choose.randint(4, 30))) + ".\n"
        parts.append(CODE if choose.random() < 0.03 else prose)
        length += len(parts[-1].encode())
    return "".join(parts).encode()[:n_bytes].decode("utf-8", "ignore")


def load_puna(path: Path) -> Encode:
    """From Meta's file, or from the tokenizer.json that a model of the store has."""
    data = path.read_bytes()
    is_json = path.suffix == ".json"
    source = TokenizerJson.from_text(data) if is_json else tokenizer_json_from_tiktoken(data)
    return Tokenizer(Vocabulary(tokenizer_json=source)).encode


def load_tiktoken(path: Path) -> Encode:
    import tiktoken

    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    special = {text: len(ranks) + i for i, text in enumerate(LLAMA3_SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding(
        "llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    return encoding.encode_ordinary


def load_tokenizers(path: Path) -> Encode:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.encode_special_tokens = True
    return lambda text: list(backend.encode(text, add_special_tokens=False).ids)


# name: (how it loads, the file that it reads)
LOADERS: dict[str, tuple[Callable[[Path], Encode], str]] = {
    "puna": (load_puna, "tokenizer.model"),
    "puna, json": (load_puna, "tokenizer.json"),
    "tiktoken": (load_tiktoken, "tokenizer.model"),
    "tokenizers": (load_tokenizers, "tokenizer.json"),
}


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MB


def load_once(name: str, path: Path) -> dict[str, float]:
    """Seconds and resident megabytes of loading, the libraries' own modules loaded before."""
    if name in ("tiktoken", "tokenizers"):
        __import__(name)
    before, start = resident(), time.perf_counter()
    encode = LOADERS[name][0](path)
    seconds = time.perf_counter() - start
    encode("llama")
    return {"s": seconds, "mb": resident() - before}


def measure(paths: dict[str, Path], text: str, rounds: int) -> dict[str, Any]:
    """All figures, after a check that all give the same ids."""
    loading: dict[str, list[dict[str, float]]] = {name: [] for name in LOADERS}
    for _ in range(5):
        for name, runs in loading.items():
            command = [
                sys.executable,
                "-m",
                "benchmarks.tokenizer",
                "--load",
                name,
                str(paths[LOADERS[name][1]]),
            ]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    encoders = {name: load(paths[file]) for name, (load, file) in LOADERS.items()}
    parts = [text[i : i + MAX_CHARACTERS] for i in range(0, len(text), MAX_CHARACTERS)]
    ids = {name: [i for part in parts for i in encode(part)] for name, encode in encoders.items()}
    if any(found != ids["puna"] for found in ids.values()):
        raise SystemExit("they give different ids")
    encoding: dict[str, list[float]] = {name: [] for name in LOADERS}
    for _ in range(rounds):
        for name, encode in encoders.items():
            start = time.perf_counter()
            for part in parts:
                encode(part)
            encoding[name].append(time.perf_counter() - start)
    return {"tokens": len(ids["puna"]), "load": loading, "encode_s": encoding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", type=Path, help="Llama 3's tokenizer.model")
    parser.add_argument("--megabytes", type=float, default=1.0, help="size of the text, in UTF-8")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--load", choices=LOADERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load_once(arguments.load, arguments.vocabulary)))
        return
    text = mixed_text(int(arguments.megabytes * MB))
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "tokenizer.json"
        written.write_bytes(tokenizer_json_from_tiktoken(arguments.vocabulary.read_bytes()).to_bytes())
        paths = {"tokenizer.model": arguments.vocabulary, "tokenizer.json": written}
        result = measure(paths, text, arguments.rounds)
    n_bytes = len(text.encode())
    result |= {
        "bytes": n_bytes,
        "rounds": arguments.rounds,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("tokenizers", "tiktoken")},
    }
    print(f"{n_bytes:,} bytes, {result['tokens']:,} tokens, medians of {arguments.rounds} rounds")
    print(f"{'':12}{'load ms':>10}{'load MB':>10}{'encode ms':>12}{'MB/s':>8}")
    for name, times in result["encode_s"].items():
        load = {key: statistics.median(run[key] for run in result["load"][name]) for key in ("s", "mb")}
        median = statistics.median(times)
        row = f"{name:12}{load['s'] * 1e3:10.0f}{load['mb']:10.1f}{median * 1e3:12.0f}"
        print(f"{row}{n_bytes / MB / median:8.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
