"""What is not needed is not loaded, and the base install needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import save_tiny

import puna

HEAVY = {"httpx2", "jinja2", "prompt_toolkit", "tokenizers", "torch", "transformers"}

BLOCK_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement."""
    code = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    )
    return set(json.loads(run(code).splitlines()[-1]))


def test_importing_puna_loads_nothing_heavy() -> None:
    assert loaded_by("import puna") & (HEAVY | {"numpy", "rich", "typer", "asyncio"}) == set()


def test_the_python_api_loads_nothing_heavy() -> None:
    # asyncio alone brings ssl, sockets and subprocesses.
    assert loaded_by("import puna.llama") & (HEAVY | {"asyncio", "rich", "ssl", "typer"}) == set()


def test_names_are_loaded_when_they_are_used() -> None:
    loaded = loaded_by("import puna; puna.User")
    assert "puna" in loaded
    assert loaded & (HEAVY | {"rich", "typer"}) == set()
    with pytest.raises(AttributeError, match="module 'puna' has no attribute 'lode'"):
        puna.lode  # noqa: B018


def test_help_loads_nothing_heavy() -> None:
    statement = """
import runpy
sys.argv = ["puna", "--help"]
try:
    runpy.run_module("puna", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_by(statement) & (HEAVY | {"numpy"}) == set()


def test_the_base_install_generates_without_torch(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    code = f"""{BLOCK_TORCH}
import puna
with puna.load(sys.argv[1]) as llama:
    answer = llama.chat([puna.User("hum")], max_tokens=5, seed=1, ignore_eos=True).result()
    vector = llama.embed("hum")
assert "torch" not in sys.modules
print(len(answer.tokens), vector.shape)
"""
    assert run(code, str(tmp_path)).split("\n")[0] == "5 (1, 48)"


def test_the_blocker_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{BLOCK_TORCH}\nimport torch"], capture_output=True, text=True, check=False
    )
    assert "torch is blocked" in done.stderr
