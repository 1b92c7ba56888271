"""Imports point one way, down the table of ARCHITECTURE.md, and torch stays where it is allowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from tests.contracts.source import ROOT, modules

import puna

# The lowest first. A package imports those before it, and itself.
ORDER = (
    "_native", "errors", "models", "tokens", "constraints", "prompt", "vision", "engine",
    "llama", "text_generation", "nn", "export", "quantize", "train", "evaluate", "tools", "memory",
    "safety", "agents", "server", "cli", "__main__",
)  # fmt: skip
TORCH_EVERYWHERE = ("puna.engine.torch", "puna.nn", "puna.quantize", "puna.train")
TORCH_IN_FUNCTIONS = ("puna.evaluate", "puna.safety", "puna.cli")
MODULES = modules()


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names of what is imported anywhere in a tree, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports are not used here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def part_of(name: str) -> str | None:
    """The part of Puna that a dotted name belongs to; None for `puna` itself and for other packages."""
    if not name.startswith("puna."):
        return None
    # What `puna` gives out by its own name lies somewhere below.
    home = puna._HOME.get(name.removeprefix("puna."), name)
    return home.split(".")[1]


def too_high(module: str, tree: ast.AST) -> list[str]:
    own = ORDER.index(part_of(module))
    return [
        f"{module}, line {line}: imports {name}"
        for name, line in imported(tree)
        if (part := part_of(name)) is not None and ORDER.index(part) > own
    ]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name != "puna"))
def test_imports_point_down(module: str) -> None:
    assert too_high(module, MODULES[module]) == []


def test_an_import_that_points_up_is_found() -> None:
    tree = ast.parse("def f():\n    from puna.engine.request import Event\n    from puna import load\n")
    assert too_high("puna.models.config", tree) == [
        "puna.models.config, line 2: imports puna.engine.request.Event",
        "puna.models.config, line 3: imports puna.load",
    ]
    assert too_high("puna.cli.chat", tree) == []


def is_torch(name: str) -> bool:
    return name.split(".")[0] in ("torch", "transformers")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_torch_is_imported_only_where_it_may_be(module: str) -> None:
    if module.startswith(TORCH_EVERYWHERE):
        pytest.skip("this package is allowed to import torch")
    tree = MODULES[module]
    if module.startswith(TORCH_IN_FUNCTIONS):
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        lazy = {line for function in functions for _, line in imported(function)}
    else:
        lazy = set()
    assert [(name, line) for name, line in imported(tree) if is_torch(name) and line not in lazy] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_says_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(MODULES[module])
    assert docstring, f"{module} has no docstring"
    folder = ROOT / "src" / module.replace(".", "/")
    if module != "puna" and folder.is_dir():
        rest = docstring.partition("\n")[2]
        assert "mport" in rest, f"{module}: say in the docstring what the package may import"
        assert ".py" in rest or "Start" in rest, f"{module}: say in the docstring where to start reading"


def test_architecture_md_draws_the_same_order() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `puna.")]
    built = [part for part in ORDER if f"puna.{part}" in MODULES or part == "_native"]
    assert rows == [f"puna.{part}" for part in built if part != "__main__"]
