"""Options that say what an answer must be."""

from __future__ import annotations

import json

import pytest
import regex

from puna.constraints import Choices, JsonSchema, Lark, Regex

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}  # fmt: skip


def test_every_option_holds_the_answer_to_it(puna, llama, tmp_path):
    schema, grammar = tmp_path / "schema.json", tmp_path / "sum.lark"
    schema.write_text(json.dumps(SCHEMA))
    grammar.write_text('start: N ("+" N){1,3}\nN: /[0-9]{1,3}/')
    limits = ("--max-tokens", 40, "--temperature", 0)
    cases = [
        (("--regex", "[a-f]{3}-[0-9]{2}"), Regex("[a-f]{3}-[0-9]{2}")),
        (("--grammar", grammar), Lark(grammar.read_text())),
        (("--choice", "llama", "--choice", "alpaca"), Choices(["llama", "alpaca"])),
        (("--json-schema", schema), JsonSchema(SCHEMA)),
    ]
    for options, constraint in cases:
        done = puna("complete", "Say something: ", *options, *limits)
        expected = llama.generate("Say something: ", constraint=constraint, max_tokens=40, temperature=0)
        assert done.stdout == expected.text + "\n"
    assert isinstance(json.loads(done.stdout)["n"], int)
    done = puna("chat", "Say something.", "--regex", "[a-f]{3}", *limits)
    assert regex.fullmatch("[a-f]{3}\n", done.stdout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--regex", "(a"), "unclosed group"),
        (("--regex", "a", "--choice", "b"), "do not go together"),
        (("--grammar", "nowhere.lark"), "nowhere.lark cannot be read"),
        (("--json-schema", "broken.json"), "broken.json is not JSON"),
        (("--json-schema", "not.json"), "at #: `not` cannot be enforced"),
    ],
)
def test_what_cannot_be_used_is_told(refused, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "not.json").write_text('{"not": {}}')
    assert message in refused("complete", "Say something: ", *options, status=2)
