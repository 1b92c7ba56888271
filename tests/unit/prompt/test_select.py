from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from puna.errors import PromptFormatError
from puna.models.catalogue import CATALOGUE
from puna.models.checkpoint import Vocabulary
from puna.models.local import known_format
from puna.prompt import chat_format
from puna.tokens import Tokenizer

TEMPLATES = Path(__file__).parents[2] / "golden" / "templates"
LLAMA3 = (TEMPLATES / "llama3.jinja").read_text().replace("<|image|>", "")
GUARD = (TEMPLATES / "guard.jinja").read_text().replace("<|image|>", "")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (None, "llama3.1"),
        (LLAMA3.replace("strftime_now", "day"), "llama3.1"),
        (LLAMA3, "llama3.2"),
        (LLAMA3 + "<|image|>", "llama3.2-vision"),
        (GUARD, "llama-guard-3-1b"),
        (GUARD + "S14:", "llama-guard-3-8b"),
        (GUARD + "<|image|>", "llama-guard-3-11b-vision"),
        ("{{ '<|im_start|>' }}", "template"),
    ],
)
def test_llama3_vocabularies(
    llama3: Tokenizer, llama3_vocabulary: Vocabulary, template: str | None, name: str
) -> None:
    assert chat_format(replace(llama3_vocabulary, chat_template=template), llama3).name == name


def test_llama2_vocabularies(llama2_vocabulary: Vocabulary) -> None:
    tokenizer = Tokenizer(llama2_vocabulary)
    for template, name in (
        (None, "base"),
        ("[INST] <<SYS>> {{ x }}", "llama2"),
        ("[INST] {{ x }}", "template"),
    ):
        assert chat_format(replace(llama2_vocabulary, chat_template=template), tokenizer).name == name


def test_a_name_goes_before_what_is_found(llama3: Tokenizer, llama3_vocabulary: Vocabulary) -> None:
    vocabulary = replace(llama3_vocabulary, chat_template=GUARD + LLAMA3)
    for name in ("llama3", "llama3.3", "llama-guard-3-8b", "base", "template"):
        assert chat_format(vocabulary, llama3, name).name == name
    assert chat_format(vocabulary, llama3, "llama-guard-3").name == "llama-guard-3-1b"
    assert chat_format(llama3_vocabulary, llama3, "llama-guard-3").name == "llama-guard-3-8b"


def test_every_format_of_the_catalogue_is_known(llama3: Tokenizer, llama3_vocabulary: Vocabulary) -> None:
    vocabulary = replace(llama3_vocabulary, chat_template=LLAMA3)
    names = {row.name: known_format(row.name) for row in CATALOGUE if row.prompt_format != "none"}
    assert names["llama3.3-70b-instruct"] == "llama3.3"
    assert names["llama-guard-3-1b-int4"] == "llama-guard-3-1b"
    assert known_format("no such model") is None
    for name in names.values():
        assert chat_format(vocabulary, llama3, name).name == name


def test_unknown_and_unsuitable_names(
    llama3: Tokenizer, llama3_vocabulary: Vocabulary, smollm: Tokenizer
) -> None:
    with pytest.raises(PromptFormatError, match="no chat format is called 'lama3'; did you mean 'llama3'"):
        chat_format(llama3_vocabulary, llama3, "lama3")
    with pytest.raises(PromptFormatError, match="the model has no chat template; name its format"):
        chat_format(llama3_vocabulary, llama3, "template")
    with pytest.raises(PromptFormatError, match=r"needs the special token '<\|start_header_id\|>'"):
        chat_format(llama3_vocabulary, smollm, "llama3.1")
