"""Conversations as Hugging Face's chat templates render them; see the golden README about those here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from puna.errors import PromptFormatError
from puna.prompt import as_messages
from puna.prompt.template import TemplateFormat
from puna.tokens import Tokenizer

TEMPLATES = Path(__file__).parents[2] / "golden" / "templates"
SPECIAL = {"bos_token": "<|begin_of_text|>"}
# Template of the vectors: our file, and what makes it that template.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3_1_3_3": ("llama3", {"fixed_date": "26 Jul 2024", "trims": True, "sees": False}),
    "llama3_2_text": ("llama3", {"fixed_date": None, "trims": True, "sees": False}),
    "llama3_2_vision": ("llama3", {"fixed_date": None, "trims": False, "sees": True}),
    "llama_guard_3_8b": ("guard", {"model": "8b"}),
    "llama_guard_3_1b": ("guard", {"model": "1b"}),
    "llama_guard_3_vision": ("guard", {"model": "vision"}),
}


def encode(tokenizer: Tokenizer, vector: dict[str, Any]) -> list[int]:
    name, which = FAMILIES[vector["template"]]
    form = TemplateFormat(tokenizer, (TEMPLATES / f"{name}.jinja").read_text(), SPECIAL)
    variables = {
        **which,
        **vector["kwargs"],
        "strftime_now": lambda _: vector["strftime_now"],
        "add_generation_prompt": vector["add_generation_prompt"],
    }
    return form.encode_chat(as_messages(vector["messages"]), variables=variables)


def test_golden_vectors(vision_tokenizer: Tokenizer, golden: Any) -> None:
    seen = set()
    for vector in golden("hf_template.jsonl"):
        if vector["error"]:
            with pytest.raises(PromptFormatError, match="chat template failed on these messages"):
                encode(vision_tokenizer, vector)
        elif not vector["notes"].startswith("INJECTION"):
            assert encode(vision_tokenizer, vector) == vector["token_ids"], vector["id"]
            seen.add(vector["template"])
    assert seen == set(FAMILIES)


def test_injected_tokens_stay_text(vision_tokenizer: Tokenizer, golden: Any) -> None:
    vectors = [v for v in golden("hf_template.jsonl") if v["notes"].startswith("INJECTION")]
    assert len(vectors) == 3
    for vector in vectors:
        ids = encode(vision_tokenizer, vector)
        assert ids != vector["token_ids"]
        assert vision_tokenizer.decode(ids, show_special=True) == vector["text"]
        # Headers of system, user and assistant: the forged one of another system message is none.
        assert (ids.count(128006), vector["token_ids"].count(128006)) == (3, 4)
