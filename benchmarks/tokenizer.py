"""Encoding speed of Puna's tokenizer beside tiktoken's, on the same text in the same run.

Both encode with Llama 3's vocabulary; the ids are compared first. Rounds alternate between the two, and
medians are told, so that a machine that is busy for a while slows both. Puna's library uses all CPUs for a
long text, tiktoken one. Needs ``pip install puna[bench]``.

    python benchmarks/tokenizer.py path/to/tokenizer.model --json result.json
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken

from puna.models.checkpoint import Vocabulary
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS, tokenizer_json_from_tiktoken
from puna.models.tokenizer_json import LLAMA3_PATTERN
from puna.tokens import Tokenizer

WORDS = """
the of and llama grass mountain because understand people through language tokenizer der die und Gebirge
Übersetzung verstehen la montaña porque año les élèves étaient पहाड़ भाषा समझना ภูเขา ภาษา 山 語言 理解 языка
понимать 1024 3.14159 2024-09-24 🦙 🏔️
"""
CODE = 'def encode(text: str) -> list[int]:\n    return [ids[t] for t in split(text)]  # {"a": [1, 2]}\n'


def mixed_text(n_characters: int) -> str:
    """Prose in several scripts, numbers, emoji and code: the same text every time."""
    choose, words = random.Random(1), WORDS.split()
    parts: list[str] = []
    length = 0
    while length < n_characters:
        part = (
            CODE
            if choose.random() < 0.03
            else " ".join(choose.choices(words, k=choose.randint(4, 30))) + ".\n"
        )
        parts.append(part)
        length += len(part)
    return "".join(parts)[:n_characters]


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def load_tiktoken(data: bytes) -> tiktoken.Encoding:
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    special = {text: len(ranks) + i for i, text in enumerate(LLAMA3_SPECIAL_TOKENS)}
    return tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=special)


def load_puna(data: bytes) -> Tokenizer:
    return Tokenizer(Vocabulary(tokenizer_json=tokenizer_json_from_tiktoken(data)))


def measure(data: bytes, text: str, rounds: int) -> dict[str, Any]:
    """Times of each, in seconds, after a check that both give the same ids."""
    loading: dict[str, list[float]] = {"puna": [], "tiktoken": []}
    for _ in range(3):
        loading["puna"].append(seconds(lambda: load_puna(data)))
        loading["tiktoken"].append(seconds(lambda: load_tiktoken(data)))
    ours, theirs = load_puna(data), load_tiktoken(data)
    ids = ours.encode(text)
    if ids != theirs.encode_ordinary(text):
        raise SystemExit("the two give different ids")
    encoding: dict[str, list[float]] = {"puna": [], "tiktoken": []}
    for _ in range(rounds):
        encoding["puna"].append(seconds(lambda: ours.encode(text)))
        encoding["tiktoken"].append(seconds(lambda: theirs.encode_ordinary(text)))
    return {"tokens": len(ids), "load_s": loading, "encode_s": encoding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", type=Path, help="Llama 3's tokenizer.model")
    parser.add_argument("--megabytes", type=float, default=1.0, help="size of the text, in UTF-8")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write everything here")
    arguments = parser.parse_args()
    text = mixed_text(int(arguments.megabytes * 1e6))
    while len(text.encode()) > arguments.megabytes * 1e6:
        text = text[: -max(1, (len(text.encode()) - int(arguments.megabytes * 1e6)) // 4)]
    n_bytes = len(text.encode())
    result = measure(arguments.vocabulary.read_bytes(), text, arguments.rounds)
    result |= {
        "bytes": n_bytes,
        "rounds": arguments.rounds,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("tokenizers", "tiktoken")},
    }
    print(f"{n_bytes:,} bytes, {result['tokens']:,} tokens, {arguments.rounds} rounds")
    print(f"{'':10}{'load s':>10}{'encode s':>12}{'least':>10}{'most':>10}{'MB/s':>8}")
    for name, times in result["encode_s"].items():
        median = statistics.median(times)
        load = statistics.median(result["load_s"][name])
        row = f"{name:10}{load:10.3f}{median:12.3f}{min(times):10.3f}{max(times):10.3f}"
        print(f"{row}{n_bytes / 1e6 / median:8.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
