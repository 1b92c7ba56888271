from __future__ import annotations

import pytest

from puna.errors import ConfigError
from puna.models.catalogue import resolve
from puna.models.licences import check_derived_name


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("llama3.2-1b", "Llama-3.2-1B-Poems"),
        ("llama3-8b", "Llama poems"),
        ("llama3.2-1b", "llama3.2-1b-int4"),
        ("llama2-7b", "poems"),
        ("smollm2", "poems"),
    ],
)
def test_names_that_a_licence_allows(original: str, name: str) -> None:
    check_derived_name(name, resolve(original).licence)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("poems", "Llama-poems"),
        ("My-Llama", "Llama-My-Llama"),
        (" Llama", "Llama- Llama"),
        ("", "Llama-"),
    ],
)
@pytest.mark.parametrize("original", ["llama3-8b", "llama3.1-8b", "llama3.2-1b", "llama3.3-70b"])
def test_names_that_a_licence_refuses(original: str, name: str, better: str) -> None:
    licence = resolve(original).licence
    with pytest.raises(ConfigError) as caught:
        check_derived_name(name, licence)
    assert str(caught.value) == (
        f"the {licence.name} asks that the name of a derived model begins with 'Llama', got {name!r}; "
        f"call it {better}"
    )
