"""The package's source files, for tests that read instead of run it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name, parsed."""
    return {_dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in SRC.rglob("*.py")}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
