"""The models that Puna knows by name, and how a name is found.

To add a model write a row in `releases.py`. Names are resolved by these rules, the first that fits:

1. What a publisher writes, letter by letter, is that model: a Hugging Face id
   (``meta-llama/Llama-3.2-1B``, with or without ``hf:`` in front), its last part, or Meta's descriptor
   (``Llama3.2-1B``). Without a word for it these are base models.
2. A Hugging Face id in other case is that model too.
3. Every other name is a short name, in which case, ``:``, ``_`` and a dash after ``llama`` do not
   matter. Without ``instruct``, ``chat`` or ``base`` it is the instruct model: ``llama3.2:1b`` is
   ``llama3.2-1b-instruct``; the base model is ``llama3.2-1b-base``.
4. A family alone (``llama3.2``) is the size that Ollama's library gives by that name.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from puna.errors import UnknownModelError
from puna.models.releases import DEFAULT_ROW, LLAMA_ROWS, SAFEGUARD_ROWS
from puna.models.rows import CatalogueRow, WheelSource

__all__ = ["CATALOGUE", "DEFAULT_MODEL", "CatalogueRow", "WheelSource", "resolve", "row_of_repository"]

CATALOGUE: tuple[CatalogueRow, ...] = (DEFAULT_ROW, *LLAMA_ROWS, *SAFEGUARD_ROWS)

DEFAULT_MODEL = DEFAULT_ROW.name

_FAMILIES = {
    "llama2": "llama2-7b-chat",
    "llama3": "llama3-8b-instruct",
    "llama3.1": "llama3.1-8b-instruct",
    "llama3.2": "llama3.2-3b-instruct",
    "llama3.2-vision": "llama3.2-11b-vision-instruct",
    "llama3.3": "llama3.3-70b-instruct",
    "llama-guard3": "llama-guard-3-8b",
}


_SUFFIX = re.compile("-(instruct|chat)(?=-|$)")


def resolve(name: str) -> CatalogueRow:
    """Find a model by any of its names; the rules are at the top of this module.

    Raises:
        UnknownModelError: no row has that name; the message has the nearest.
    """
    published = {text: row for row in CATALOGUE for text in _published_names(row)}
    repositories = {text.lower(): row for row in CATALOGUE for text in row.huggingface}
    short = {text: row for row in CATALOGUE for text in _short_names(row)}
    key = _short_form(name)
    there = name.removeprefix("hf:")
    row = published.get(there) or repositories.get(there.lower()) or short.get(_FAMILIES.get(key, key))
    if row is not None:
        return row
    close = get_close_matches(key, [*short, *_FAMILIES], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UnknownModelError(f"no model is called {name!r}; {hint}`puna list --all` lists those there are")


def row_of_repository(repository: str) -> CatalogueRow | None:
    """The model that a Hugging Face repository holds, None where the catalogue does not have it."""
    return next((row for row in CATALOGUE if repository in row.huggingface), None)


def _published_names(row: CatalogueRow) -> list[str]:
    return [*row.huggingface, *(text.rpartition("/")[2] for text in row.huggingface), *row.meta]


def _short_names(row: CatalogueRow) -> set[str]:
    names = {row.name, *row.aliases}
    if row.ollama is not None:
        names.add(_short_form(row.ollama))
    if row.is_instruct:
        names.add(_SUFFIX.sub("", row.name))
        names.update(_short_form(text) for text in _published_names(row) if "/" not in text)
    return names


def _short_form(name: str) -> str:
    key = re.sub("[:_ ]", "-", name.lower()).removesuffix("-latest").removesuffix("-hf")
    return re.sub(r"^(meta-)?llama-(?=\d)", "llama", key)
