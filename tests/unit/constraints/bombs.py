"""Constraints that mean harm, and a program that sets off all of them, to see what they cost.

python -m tests.unit.constraints.bombs MODEL.gguf
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from puna.constraints import Choices, Compiler, Constraint, JsonSchema, Lark, Matcher, Regex
from puna.errors import ConstraintError
from puna.models.gguf import GgufCheckpoint
from puna.tokens import Tokenizer

END = 2  # a stop token of the vocabulary


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def long_lists(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "maxItems": 10_000, "items": schema}
    return schema


def twice_in_itself() -> dict[str, Any]:
    itself = {"$ref": "#/$defs/n"}
    return {"$defs": {"n": {"properties": {"a": itself, "b": itself}}}, **itself}


def product_of_choices() -> dict[str, Any]:
    pairs = [[{"properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(2)] for i in range(20)]
    return {"allOf": [{"anyOf": pair} for pair in pairs]}


def names_of_many_patterns() -> dict[str, Any]:
    return {"patternProperties": {f"^(a|b)*a(a|b){{{i}}}$": {} for i in range(5, 25)}}


def doubling(keyword: str) -> dict[str, Any]:
    parts = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    return {"$defs": {**parts, "d40": {"type": "string"}}, "$ref": "#/$defs/d0"}


BOMBS: dict[str, Constraint] = {
    "nested a bit": JsonSchema(nested(60)),
    "nested deeply": JsonSchema(nested(500)),
    "nested endlessly": JsonSchema(nested(5_000)),
    "itself": JsonSchema({"$ref": "#"}),
    "two of all": JsonSchema(doubling("allOf")),
    "two of any": JsonSchema(doubling("anyOf")),
    "a billion items": JsonSchema({"type": "array", "minItems": 10**9, "items": {"type": "integer"}}),
    "a billion letters": JsonSchema({"type": "string", "minLength": 10**9}),
    "many letters": JsonSchema({"type": "string", "minLength": 10**5, "maxLength": 10**5}),
    "many names": JsonSchema({"properties": {f"k{i}": {"type": "string"} for i in range(1_500)}}),
    "a large factor": JsonSchema({"type": "integer", "multipleOf": 1_234_567_891}),
    "a large number": JsonSchema({"type": "integer", "minimum": -(10**300), "maximum": 10**300}),
    "repeated": Regex("((a{0,1000}){0,1000}){0,1000}"),
    "many states": Regex("(.*a.{200}b.*){50}"),
    "many letters of many kinds": Regex(r"(\w{1,200}\s\p{L}{1,300}){1,300}"),
    "a deep pattern": Regex("(" * 30_000 + "a" + ")" * 30_000),
    "a deep grammar": Lark("start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    "a doubling grammar": Lark("".join(f"A{i}: A{i + 1}{{2}}\n" for i in range(60)) + "A60: /x/\nstart: A0"),
    "an ambiguous grammar": Lark('start: start start | "a" | start start start'),
    "a repeating grammar": Lark('start: a{1000000}\na: b{1000000}\nb: "x"{1000000}'),
    "itself in itself": JsonSchema(twice_in_itself()),
    "lists of lists of lists": JsonSchema(long_lists(3)),
    "a product of choices": JsonSchema(product_of_choices()),
    "factors": JsonSchema({"allOf": [{"multipleOf": factor} for factor in (99_991, 99_989, 99_971)]}),
    "a pattern of many states": JsonSchema({"type": "string", "pattern": "^(a|b)*a(a|b){25}$"}),
    "names of many patterns": JsonSchema(names_of_many_patterns()),
    "many words": Regex("|".join(f"word{i}" for i in range(5_000))),
    "many choices": Choices([f"choice {i}" for i in range(3_000)]),
    "a grammar of nothing": Lark('start: a a a a a a a a\na: b b b b b b b b\nb: c c c c c c c c\nc: "x" |'),
    "a grammar that begins with itself": Lark("start: start"),
    "a lexeme in itself": Lark('start: A\nA: "x" B\nB: A "y"'),
    "not that": Lark("start: A & ~B\nA: /(a|b)*a(a|b){18}/\nB: /(a|b)*b(a|b){18}/"),
}  # fmt: skip


# Those that only look dangerous, so far as 60 tokens tell.
HARMLESS = (
    "nested a bit", "two of all", "two of any", "a billion items", "a billion letters", "many letters",
    "many names", "many letters of many kinds", "itself in itself", "lists of lists of lists",
    "a pattern of many states", "many words", "a grammar of nothing",
)  # fmt: skip


def fate(compiler: Compiler, matcher: Matcher) -> ConstraintError | None:
    """Why a random answer of 60 tokens cannot go on, None where it can or is over."""
    draw = np.random.default_rng(0)
    masks = np.zeros((1, compiler.n_words), np.uint32)
    for _ in range(60):
        matcher.fill(masks, [])
        bits = np.flatnonzero(np.unpackbits(masks.view(np.uint8), bitorder="little"))
        choices = bits[(bits != END) & (bits < compiler._vocab_size)]
        if matcher.error is not None or not len(choices):
            break
        matcher.take(int(draw.choice(choices)))
        if matcher.is_over:
            break
    return matcher.error


def why_not(compiler: Compiler, constraint: Constraint) -> str | None:
    """Why a constraint, or an answer in it, is refused; None where it is not."""
    try:
        error = fate(compiler, compiler.matcher(constraint, [END]))
    except ConstraintError as refusal:
        error = refusal
    return None if error is None else str(error)


def main() -> None:
    """Print the fate of each bomb, and by how many MiB memory grew at the most."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # the system ends it after so much work
    compiler = Compiler(Tokenizer(GgufCheckpoint(Path(sys.argv[1])).vocabulary()), 49_152)
    compiler.prepare(Regex("a"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fates = {name: why_not(compiler, constraint) for name, constraint in BOMBS.items()}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"fates": fates, "MiB": grown // 1024}))


if __name__ == "__main__":
    main()
