from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from puna.errors import UnknownModelError
from puna.models.catalogue import CATALOGUE, DEFAULT_MODEL, resolve


def test_names_are_unique_and_fit_a_folder() -> None:
    names = [name.lower() for row in CATALOGUE for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
    for row in CATALOGUE:
        assert row.name == row.name.lower()
        assert not set(row.name) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize(
    "name",
    [
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct",
        "smollm2",
        "Default",
        "huggingfacetb/smollm2-135m-instruct",
    ],
)
def test_names_and_aliases_of_any_case(name: str) -> None:
    assert resolve(name).name == DEFAULT_MODEL


def test_unknown_name() -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve("smolm2")
    assert str(caught.value) == (
        "no model is called 'smolm2'; did you mean 'smollm2'? known: HuggingFaceTB/SmolLM2-135M-Instruct, "
        "default, smollm2, smollm2-135m-instruct"
    )


def test_the_default_model_is_the_file_that_its_row_describes(default_gguf: Path) -> None:
    data = default_gguf.read_bytes()
    source = resolve(DEFAULT_MODEL).source
    assert (len(data), hashlib.sha256(data).hexdigest()) == (source.member_bytes, source.member_sha256)
