"""The public surface changes only on purpose: `__all__` is complete, and the snapshot is up to date."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest
from tests.contracts.public import SNAPSHOT, describe
from tests.contracts.source import modules

import puna

MODULES = {name: tree for name, tree in modules().items() if name != "puna.__main__"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def test_the_snapshot_is_up_to_date() -> None:
    assert describe() == SNAPSHOT.read_text(encoding="utf-8"), "if it is meant so, run `make snapshots`"


def test_puna_gives_out_what_it_lists() -> None:
    assert sorted(puna._HOME) == puna.__all__
    assert dir(puna) == sorted([*puna.__all__, "__version__"])


@pytest.mark.parametrize("name", puna.__all__)
def test_public_names_resolve_and_are_documented(name: str) -> None:
    # An imported submodule becomes an attribute of its package, and must not hide a name of the API.
    importlib.import_module(puna._HOME[name])
    value = getattr(puna, name)
    assert not inspect.ismodule(value)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__ == puna._HOME[name]
        assert value.__doc__
        assert not value.__doc__.startswith(f"{name}("), "a dataclass that was not given a docstring"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_all_lists_every_public_definition(name: str) -> None:
    tree = MODULES[name]
    defined = {node.name for node in tree.body if isinstance(node, DEFINITIONS) and node.name[0] != "_"}
    module = importlib.import_module(name)
    listed = set(getattr(module, "__all__", ()))
    assert defined - listed == set()
    assert [each for each in listed if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_is_listed_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    values = [getattr(module, each) for each in getattr(module, "__all__", ())]
    parts = [value for value in values if inspect.isclass(value) or inspect.isfunction(value)]
    assert [part.__name__ for part in parts if not part.__doc__] == []
