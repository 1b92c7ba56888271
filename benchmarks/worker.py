"""One engine in a process of its own: prints its times and its peak memory as a line of JSON."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from benchmarks.engines import load
from puna.evaluate.speed import peak_rss_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine")
    parser.add_argument("path", type=Path)
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    context = arguments.prompt_tokens + arguments.new_tokens + 64
    engine = load(arguments.engine, arguments.path, context, arguments.threads)
    pick = random.Random(arguments.prompt_tokens)

    def prompt(n: int) -> list[int]:
        return [pick.randrange(1000, 100_000) for _ in range(n)]

    engine.run(prompt(16), 4)  # pages of the file come in, threads wake up
    times = engine.run(prompt(arguments.prompt_tokens), arguments.new_tokens)
    result = {
        "prefill_tok_s": arguments.prompt_tokens / times.prefill_s,
        "decode_tok_s": (arguments.new_tokens - 1) / times.decode_s,
        "peak_rss_mb": peak_rss_bytes() / 1e6,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
