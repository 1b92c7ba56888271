"""What is kept of constraints is bounded, and nobody loses a fair share of it to others."""

from __future__ import annotations

from typing import Any

import pytest

from puna.constraints import Compiler, Regex
from puna.constraints.kept import Kept
from puna.tokens import Tokenizer

ONE: Any = object()  # stands for a compiled constraint


def kept_of(kept: Kept, owner: str, texts: list[str]) -> list[str]:
    return [text for text in texts if kept.find((owner, text)) is not None]


def test_a_constraint_is_compiled_once_for_each_owner(
    smollm: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, compiled = Compiler(smollm, smollm.vocab_size), []
    compile_one = compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda *a: (compiled.append(a[1]), compile_one(*a))[1])
    for owner in ("ada", "bob", "", "ada", "bob", ""):
        compiler.prepare(Regex("a+"), owner)
        compiler.matcher(Regex("a+"), [2], owner)
    assert len(compiled) == 3


def test_the_last_ones_are_kept() -> None:
    kept, texts = Kept(), [f"a{i}" for i in range(20)]
    for text in texts:
        kept.add(("", text), ONE)
    assert kept_of(kept, "", texts) == texts[-16:]
    kept.find(("", texts[4]))
    kept.add(("", "b"), ONE)
    assert kept_of(kept, "", texts) == [texts[4], *texts[6:]]
    kept.forget(("", "b"))
    assert kept.find(("", "b")) is None


def test_long_ones_take_more_room() -> None:
    kept, texts = Kept(), [letter * 300_000 for letter in "abcd"]
    for text in texts:
        kept.add(("", text), ONE)
    assert kept_of(kept, "", texts) == texts[1:]
    kept.add(("", "e" * 2_000_000), ONE)
    assert not kept_of(kept, "", [*texts, "e" * 2_000_000])


@pytest.mark.parametrize("length", [1, 65_536, 300_000])
def test_nobody_pushes_out_more_than_others_have_beyond_their_share(length: int) -> None:
    kept, texts = Kept(), [f"b{i}" for i in range(16)]
    for text in texts:
        kept.add(("bob", text), ONE)
    for i in range(100):
        kept.add(("ada", str(i).rjust(length)), ONE)
    assert len(kept_of(kept, "bob", texts)) >= 8
    assert kept_of(kept, "bob", texts) == texts[-len(kept_of(kept, "bob", texts)) :]
