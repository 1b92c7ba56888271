"""The default model on the JSON Schema Test Suite: which schemas can be enforced, and are the answers valid?

The suite comes with the sources of jsonschema:

    pip download jsonschema==4.26.0 --no-deps --no-binary :all: && tar xf jsonschema-4.26.0.tar.gz
    python -m benchmarks.schemas jsonschema-4.26.0/json

Every schema of a draft is compiled, and answers are asked for to those that can be enforced, or to a random
sample of them, always the same one. A whole answer is held against the schema by jsonschema; one that
`--max-tokens` cut is counted apart. The exit status is 1 where a whole answer is not valid.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema

import puna
from puna.errors import ConstraintError

VALIDATORS = {
    "draft2020-12": jsonschema.Draft202012Validator,
    "draft2019-09": jsonschema.Draft201909Validator,
    "draft7": jsonschema.Draft7Validator,
    "draft6": jsonschema.Draft6Validator,
    "draft4": jsonschema.Draft4Validator,
}


def cases(suite: Path, draft: str) -> list[tuple[str, Any]]:
    """Name and schema of every case, the optional ones included."""
    found = []
    for path in sorted((suite / "tests" / draft).rglob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            found.append((f"{path.name}: {case['description']}", case["schema"]))
    return found


def with_draft(schema: Any, draft: str) -> Any:
    """The schema with the draft that it is written in, where it does not say so itself."""
    names = {"draft2020-12": "https://json-schema.org/draft/2020-12/schema",
             "draft2019-09": "https://json-schema.org/draft/2019-09/schema"}  # fmt: skip
    name = names.get(draft, f"http://json-schema.org/draft-0{draft.removeprefix('draft')}/schema#")
    return {"$schema": name, **schema} if isinstance(schema, dict) else schema


def ask(llama: puna.Llama, schema: Any, max_tokens: int, seed: int) -> puna.Stream:
    """An answer on its way."""
    question = f"Give an example of JSON for this schema:\n{json.dumps(schema)}"
    return llama.chat(
        [puna.User(question[:3000])],
        constraint=puna.JsonSchema(schema),
        max_tokens=max_tokens,
        seed=seed,
        repetition_penalty=1.1,
    )


def supported(llama: puna.Llama, suite: Path, draft: str, counts: Counter[str]) -> list[tuple[str, Any]]:
    """Name and schema of what can be enforced; the others are counted."""
    found = []
    for name, schema in cases(suite, draft):
        schema = with_draft(schema, draft)
        try:
            llama.engine.prepare(puna.JsonSchema(schema))
            found.append((name, schema))
        except ConstraintError:
            counts["refused"] += 1
    counts["supported"] = len(found)
    return found


def problem(answer: str, schema: Any, draft: str) -> str | None:
    """What jsonschema says against an answer, None where it is valid."""
    try:
        VALIDATORS[draft](schema).validate(json.loads(answer))
    except Exception as error:
        return f"{answer!r:.200}: {str(error).splitlines()[0]:.200}"
    return None


def measure(
    llama: puna.Llama, suite: Path, draft: str, sample: int | None, max_tokens: int
) -> tuple[Counter[str], list[str]]:
    """Counts of a draft, and what was wrong."""
    counts: Counter[str] = Counter()
    asked = supported(llama, suite, draft, counts)
    if sample is not None and sample < len(asked):
        asked = random.Random(0).sample(asked, sample)
    counts["asked"] = len(asked)
    running = [
        (name, schema, ask(llama, schema, max_tokens, seed)) for seed, (name, schema) in enumerate(asked)
    ]
    wrong = []
    for name, schema, stream in running:
        answer = stream.result()
        if answer.finish_reason != "stop":
            counts["cut"] += 1
            continue
        counts["whole"] += 1
        reason = problem(answer.text, schema, draft)
        if reason is None:
            counts["valid"] += 1
        else:
            wrong.append(f"{draft}, {name}: {reason}")
    return counts, wrong


def main() -> int:
    """Ask, count and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suite", type=Path, help="folder of the suite, in which `tests` lies")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--drafts", nargs="+", choices=list(VALIDATORS), default=["draft2020-12", "draft7"])
    parser.add_argument("--sample", type=int, help="ask about so many schemas of a draft; default: all")
    parser.add_argument("--max-tokens", type=int, default=200)
    given = parser.parse_args()
    all_wrong = []
    with puna.load(given.model, context=2048, cache_tokens=32 * 2048) as llama:
        for draft in given.drafts:
            counts, wrong = measure(llama, given.suite, draft, given.sample, given.max_tokens)
            all_wrong += wrong
            names = ("refused", "supported", "asked", "cut", "whole", "valid")
            told = ", ".join(f"{counts[name]} {name}" for name in names)
            print(f"{draft}: {told}", flush=True)
    print("\n".join(all_wrong))
    return 1 if all_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
