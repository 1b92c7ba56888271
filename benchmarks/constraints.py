"""What a constraint costs a token, and what certain tokens gain: constrained and free answers in turn.

Answers to one prompt, each kind once a round, on one engine; greedy ones unless a temperature is given. Time
is that after the first token over the tokens. Told are medians, and those of the ratios to the free answer of
the same round, so that a machine that is busy slows both.

    python -m benchmarks.constraints --model smollm2-135m-instruct --rounds 9
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import puna

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "city": {"enum": ["La Paz", "Cusco", "Puno"]},
        "likes": {
            "type": "array",
            "items": {"type": "string", "maxLength": 12},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "city", "likes"],
    "additionalProperties": False,
}
KINDS: dict[str, dict[str, Any]] = {
    "free": {"ignore_eos": True},
    # Nothing is certain: the whole cost of masks, and no gain.
    "any text": {"constraint": puna.Regex(r"(?s:.{2000,})")},
    "words": {"constraint": puna.Regex(r"([a-z]{2,9} ){400,}")},
    "list of persons": {"constraint": puna.JsonSchema({"type": "array", "items": PERSON, "minItems": 60})},
    # As many properties as keep it from ending before the others.
    "any object": {"constraint": puna.JsonSchema({"type": "object", "minProperties": 24})},
}
PROMPT = "A list of persons as JSON, with name, age, city and what they like."


def per_token_ms(llama: puna.Llama, prompt: list[int], options: dict[str, Any]) -> float:
    """Time of a token after the first."""
    answer = llama.generate(prompt, **options)
    return 1000 * answer.usage.decode_s / max(1, answer.usage.completion_tokens - 1)


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--format", default="auto")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--json", help="file for all values")
    given = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for speculation in ("off", "lookup"):
        with puna.load(given.model, format=given.format, context=1024, speculation=speculation) as llama:
            prompt = llama.tokenizer.encode(PROMPT)
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            common = {"temperature": given.temperature, "seed": 0, "max_tokens": given.tokens}
            for options in KINDS.values():  # to compile, and to have the weights in memory
                per_token_ms(llama, prompt, {**common, **options, "max_tokens": 8})
            for round_ in range(given.rounds):
                order = list(KINDS)[round_ % len(KINDS) :] + list(KINDS)[: round_ % len(KINDS)]
                for kind in order:
                    times[kind].append(per_token_ms(llama, prompt, {**common, **KINDS[kind]}))
        found[speculation] = times
        for kind, values in times.items():
            ratios = [value / free for value, free in zip(values, times["free"], strict=True)]
            print(
                f"speculation {speculation:7} {kind:16} {statistics.median(values):7.2f} ms a token, "
                f"{statistics.median(ratios):.2f} of the free answer ({min(ratios):.2f} to {max(ratios):.2f})"
            )
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
