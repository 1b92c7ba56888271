"""Chat templates, which are programs from outside."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.fuzz.fuzz_tokenizer_json import tokenizer_json
from tests.fuzz.harness import main

from puna.models.checkpoint import Vocabulary
from puna.prompt import Assistant, System, Tool, ToolCall, ToolDefinition, User
from puna.prompt.preamble import Preamble
from puna.prompt.template import TemplateFormat
from puna.tokens import Tokenizer

TEMPLATES = Path(__file__).parents[1] / "golden" / "templates"
END = "<|end|>"
CALL = Assistant("", tool_calls=(ToolCall("f", {"a": 1}),))
PREAMBLE = Preamble(tools=(ToolDefinition("f", "does it", {"type": "object"}),))


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(Vocabulary(tokenizer_json=tokenizer_json(), eos_ids=(257,)))


def seeds() -> list[bytes]:
    small = (
        "{% for m in messages %}{{ m.role ~ ': ' + m['content'] | trim }}{{ '<|end|>' }}{% endfor %}",
        "{%- set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index0 %}{% endfor %}"
        "{{ '%05d' % ns.n }}{{ messages | tojson(indent=2) }}{{ 'ab' * ns.n }}",
        "{% macro f(x) %}{{ x.upper() }}{% endmacro %}{{ f('a') }}"
        "{{ messages | map(attribute='role') | join(', ') }}",
    )
    # Those of the guard models take other conversations only.
    published = [path.read_text() for path in sorted(TEMPLATES.glob("*.jinja")) if "guard" not in path.name]
    return [text.encode() for text in (*small, *published)]


def parse(data: bytes, folder: Path) -> None:
    form = TemplateFormat(tokenizer(), data.decode("utf-8", "replace"), {"bos_token": END})
    first = [System("s"), User(f"q {END}")]
    ids = form.encode_chat(first)
    assert all(0 <= i < tokenizer().vocab_size for i in ids)
    form.encode_chat([*first, CALL, Tool("{}"), User("x")], preamble=PREAMBLE)


if __name__ == "__main__":
    main(seeds, parse)
