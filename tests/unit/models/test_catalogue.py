from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from puna.errors import UnknownModelError
from puna.models.architectures import ClassifierArchitecture
from puna.models.catalogue import (
    CATALOGUE,
    DEFAULT_MODEL,
    _published_names,
    _short_names,
    resolve,
    row_of_repository,
)
from puna.models.config import ModelConfig
from puna.models.rows import CatalogueRow

NAMES = [row.name for row in CATALOGUE]
SIZES = {
    "llama2": ("7b", "13b", "70b"),
    "llama3": ("8b", "70b"),
    "llama3.1": ("8b", "70b", "405b"),
    "llama3.2": ("1b", "3b", "11b-vision", "90b-vision"),
}
EXPECTED = {
    *(f"{family}-{size}-base" for family, sizes in SIZES.items() for size in sizes),
    *(
        f"{family}-{size}-{'chat' if family == 'llama2' else 'instruct'}"
        for family, sizes in SIZES.items()
        for size in sizes
    ),
    *(f"llama3.2-{size}-instruct-{method}" for size in ("1b", "3b") for method in ("spinquant", "qlora")),
    "llama3.3-70b-instruct",
    "llama-guard-3-1b",
    "llama-guard-3-1b-int4",
    "llama-guard-3-8b",
    "llama-guard-3-11b-vision",
    "prompt-guard-86m",
    "llama-prompt-guard-2-22m",
    "llama-prompt-guard-2-86m",
    "smollm2-135m-instruct",
}


def test_every_release_is_there() -> None:
    assert set(NAMES) == EXPECTED
    assert len(NAMES) == len(EXPECTED)


def test_names_are_unique_and_fit_a_folder() -> None:
    said = [{*_short_names(row), *map(str.lower, row.huggingface)} for row in CATALOGUE]
    assert [name for name, count in Counter(chain(*said)).items() if count > 1] == []
    exact = [set(_published_names(row)) for row in CATALOGUE]
    assert [name for name, count in Counter(chain(*exact)).items() if count > 1] == []
    for name in NAMES:
        assert re.fullmatch("[a-z0-9.-]+", name)


# Meta's card says 88.8 for the large vision model; the weights that it published are 88.59 billion,
# which is what transformers counts too (test_architectures.py).
_PUBLISHED_OTHERWISE = {"llama3.2-90b-vision-base", "llama3.2-90b-vision-instruct"}


@pytest.mark.parametrize("row", CATALOGUE, ids=NAMES)
def test_the_architecture_has_the_published_number_of_weights(row: CatalogueRow) -> None:
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([MB])", row.published_parameters)
    assert match
    published = float(row.published_parameters[:-1]) * {"M": 1e6, "B": 1e9}[match[3]]
    last_digit = {"M": 1e6, "B": 1e9}[match[3]] / 10 ** len(match[2] or "")
    classifier = row.architecture if isinstance(row.architecture, ClassifierArchitecture) else None
    found = classifier.n_backbone_parameters if classifier else row.n_parameters
    if isinstance(row.architecture, ModelConfig):
        found = replace(row.architecture, lora_rank=0).n_parameters  # the cards leave adaptors out
    # Some cards round and some cut: 1.2358 is "1.23B", 70.55 is "70.6B".
    digits = 3 if row.name in _PUBLISHED_OTHERWISE else 1
    assert abs(found - published) < digits * last_digit


@pytest.mark.parametrize(
    ("name", "parameters"),
    {  # the sum of the sizes in the published index files
        "llama2-7b-chat": 6_738_415_616,
        "llama2-13b-chat": 13_015_864_320,
        "llama2-70b-chat": 68_976_648_192,
        "llama3-8b-instruct": 8_030_261_248,
        "llama3.3-70b-instruct": 70_553_706_496,
        "llama3.1-405b-instruct": 405_853_388_800,
        "llama3.2-1b-instruct": 1_235_814_400,
        "llama3.2-3b-instruct": 3_212_749_824,
        "llama3.2-11b-vision-instruct": 10_670_220_835,
        "llama-guard-3-1b": 1_498_482_688,
        "smollm2-135m-instruct": 134_515_008,
    }.items(),
)
def test_exact_numbers_of_weights(name: str, parameters: int) -> None:
    assert resolve(name).n_parameters == parameters


EIGHT = ("en", "de", "fr", "it", "pt", "hi", "es", "th")
FACTS = {  # context, languages, tool calling of the instruct model
    "Llama 2": (4096, ("en",), False),
    "Llama 3": (8192, ("en",), False),
    "Llama 3.1": (131072, EIGHT, True),
    "Llama 3.2": (131072, EIGHT, True),
    "Llama 3.3": (131072, EIGHT, True),
}


@pytest.mark.parametrize("row", [r for r in CATALOGUE if r.family in FACTS], ids=lambda row: row.name)
def test_facts_of_the_model_cards(row: CatalogueRow) -> None:
    context, languages, calls_tools = FACTS[row.family]
    assert row.context_tokens == (8192 if row.kind == "quantized" else context)
    assert row.languages == languages
    assert row.has_tool_calling == (calls_tools and row.is_instruct)
    assert row.is_runnable == (row.kind in ("text", "quantized"))
    assert row.licence.name == f"{row.family} Community License"
    says_eu = any("European Union" in duty for duty in row.licence.duties)
    assert says_eu == (row.kind == "vision")
    built_with = any('"Built with Llama"' in duty for duty in row.licence.duties)
    assert built_with == (row.family != "Llama 2") == (row.licence.name_prefix == "Llama")


SPELLINGS = {
    "llama3.2-1b-instruct": [
        "llama3.2-1b", "llama3.2:1b", "llama-3.2-1b-instruct", "Llama-3.2-1B-Instruct", "LLAMA3.2-1B",
        "Llama3.2-1B-Instruct", "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/llama-3.2-1b-instruct",
        "hf:meta-llama/Llama-3.2-1B-Instruct",
        "llama3.2_1b", "llama 3.2 1b",
    ],
    "llama3.2-1b-base": [
        "Llama3.2-1B", "Llama-3.2-1B", "meta-llama/Llama-3.2-1B", "META-LLAMA/LLAMA-3.2-1B",
        "llama-3.2-1b-base", "llama3.2:1b-base",
    ],
    "llama3.2-1b-instruct-spinquant": [
        "Llama3.2-1B-Instruct:int4-spinquant-eo8", "meta-llama/Llama-3.2-1B-Instruct-SpinQuant_INT4_EO8",
        "llama3.2-1b-spinquant", "llama3.2-1b-instruct:int4-spinquant-eo8",
    ],
    "llama3.2-3b-instruct-qlora": ["Llama3.2-3B-Instruct:int4-qlora-eo8"],
    "llama3.1-8b-instruct": [
        "Meta-Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct", "llama3.1", "llama3.1:latest",
        "meta-llama-3.1-8b-instruct",
    ],
    "llama3.1-8b-base": ["Meta-Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B"],
    "llama3.1-405b-base": ["Llama3.1-405B:bf16-mp8", "Llama3.1-405B"],
    "llama3-8b-instruct": ["meta-llama/Meta-Llama-3-8B-Instruct", "Llama-3-8B-Instruct", "llama3"],
    "llama3-70b-base": ["meta-llama/Meta-Llama-3-70B", "Llama-3-70B"],
    "llama2-7b-chat": [
        "llama2", "llama2:7b", "llama-2-7b-chat", "llama2-7b-instruct", "meta-llama/Llama-2-7b-chat-hf",
        "meta-llama/Llama-2-7b-chat", "llama-2-7b-chat-hf",
    ],
    "llama2-7b-base": ["llama2:7b-text", "Llama-2-7b", "Llama-2-7b-hf", "meta-llama/Llama-2-7b"],
    "llama3.2-11b-vision-instruct": ["llama3.2-vision", "llama3.2-vision:11b"],
    "llama3.2-3b-instruct": ["llama3.2", "llama3.2:latest"],
    "llama3.3-70b-instruct": ["llama3.3", "llama3.3:70b", "Llama3.3-70B-Instruct"],
    "llama-guard-3-1b": ["llama-guard3:1b", "Llama-Guard-3-1B", "meta-llama/Llama-Guard-3-1B"],
    "llama-guard-3-1b-int4": ["Llama-Guard-3-1B:int4"],
    "llama-guard-3-8b": ["llama-guard3"],
    "prompt-guard-86m": ["meta-llama/Prompt-Guard-86M", "Prompt-Guard-86M"],
    "smollm2-135m-instruct": [
        "smollm2", "Default", "smollm2:135m", "huggingfacetb/smollm2-135m-instruct", "SmolLM2-135M-Instruct",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "name"), [(written, name) for name, spellings in SPELLINGS.items() for written in spellings]
)
def test_every_way_to_write_it(written: str, name: str) -> None:
    assert resolve(written).name == name


@pytest.mark.parametrize("row", CATALOGUE, ids=NAMES)
def test_every_name_of_a_row_leads_to_it(row: CatalogueRow) -> None:
    for name in (row.name, *row.aliases, *row.huggingface, *row.meta, row.ollama or row.name):
        assert resolve(name) is row
    for name in row.huggingface:
        assert resolve(name.rpartition("/")[2]) is row
        assert row_of_repository(name) is row


def test_a_repository_of_somebody_else_is_not_the_catalogue_s() -> None:
    assert row_of_repository("unsloth/Llama-3.2-1B-Instruct") is None
    with pytest.raises(UnknownModelError):
        resolve("unsloth/Llama-3.2-1B-Instruct")


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("smolm2", "smollm2"),
        ("lama3.2-1b", "llama3.2-1b"),
        ("llama3.2-1b-instrct", "llama3.2-1b-instruct"),
        ("lama-guard3:1b", "llama-guard3-1b"),
    ],
)
def test_a_typing_mistake_gives_the_nearest_name(written: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve(written)
    assert str(caught.value) == (
        f"no model is called {written!r}; did you mean {nearest!r}? `puna list --all` lists those there are"
    )


@pytest.mark.parametrize("name", ["zzz", "", "/", "..", "llama", "llama3.2-7b-", "a" * 10_000])
def test_unknown_names(name: str) -> None:
    with pytest.raises(
        UnknownModelError, match=r"no model is called .*; .*`puna list --all` lists those there"
    ):
        resolve(name)


def test_the_default_model_is_the_file_that_its_row_describes(default_gguf: Path) -> None:
    data = default_gguf.read_bytes()
    wheel = resolve(DEFAULT_MODEL).wheel
    assert wheel
    assert (len(data), hashlib.sha256(data).hexdigest()) == (wheel.member_bytes, wheel.member_sha256)
