"""Docstrings and signatures agree: an `Args:` section names exactly the arguments, in their order."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.contracts.source import ROOT, SRC

# Fewer arguments than in the signature: fine without an `Args:` section, where the summary says it all.
_FEWER = ("DOC101", "DOC103")
# No `Returns:` or `Yields:` section: fine where the summary says what comes back.
_NO_RESULT = ("DOC201", "DOC402", "DOC404")


def violations() -> list[tuple[Path, int, str, str]]:
    """What pydoclint finds: file, line of the function, code and text."""
    command = [sys.executable, "-m", "pydoclint.main", "--quiet", "--config=pyproject.toml", "src"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = []
    path = ROOT
    for line in (done.stdout + done.stderr).splitlines():
        if row := re.fullmatch(r"\s+(\d+): (DOC\d+): (.*)", line):
            found.append((path, int(row[1]), row[2], row[3]))
        elif line.endswith(".py"):
            path = ROOT / line
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return found


def has_arguments(path: Path, line: int) -> bool:
    """Whether the docstring of the function at a line has an `Args:` section."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, functions) and node.lineno == line:
            return "\nArgs:\n" in (ast.get_docstring(node) or "")
    raise AssertionError(f"{path}:{line} is no function")


def test_docstrings_name_the_arguments() -> None:
    wrong = [
        f"{path.relative_to(SRC)}:{line}: {code} {text}"
        for path, line, code, text in violations()
        if code not in _NO_RESULT and (code not in _FEWER or has_arguments(path, line))
    ]
    assert wrong == []
