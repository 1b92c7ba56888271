"""Every block of code in the README and the docs runs, or says why not."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# All blocks of a page in one process, so that a page may go on from block to block.
RUN_PYTHON = """
import json, sys
space = {"__name__": "__main__"}
for name, code in json.load(sys.stdin):
    exec(compile(code, name, "exec"), space)
"""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    where: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('code')) + 1}"
        found.append(Block(match["language"], match["code"], where, match["reason"]))
    n_fences = len(re.findall(r"^```(?:bash|python)$", text, flags=re.MULTILINE))
    assert len(found) == n_fences, f"{page} has a block that is not closed"
    return found


def runnable(language: str) -> list[Path]:
    pages = [page for page in PAGES if any(b.language == language and not b.reason for b in blocks(page))]
    assert pages
    return pages


@pytest.fixture(scope="session")
def environment(store_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store that has the default model, shared by all pages, and `puna` on the path."""
    folder = tmp_path_factory.mktemp("docs")
    programs = Path(sys.executable).parent
    if not (programs / "puna").exists():  # running from a source tree
        script = folder / "bin" / "puna"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m puna "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        programs = script.parent
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PUNA_HOME": str(store_home), "PATH": path}


def run(command: list[str], given: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, input=given, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", runnable("python"), ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    import json

    code = [(b.where, b.code) for b in blocks(page) if b.language == "python" and not b.reason]
    run([sys.executable, "-W", "error", "-c", RUN_PYTHON], json.dumps(code), tmp_path, environment)


@pytest.mark.parametrize("page", runnable("bash"), ids=lambda page: page.name)
def test_bash_blocks_run(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    for block in blocks(page):
        if block.language == "bash" and not block.reason:
            script = f"set -euo pipefail\n# {block.where}\n{block.code}"
            run(["bash", "-c", script], "", tmp_path, environment)


def test_blocks_that_are_not_run_say_why() -> None:
    reasons = {b.where.split(":")[0]: b.reason for page in PAGES for b in blocks(page) if b.reason}
    assert all(len(reason.split()) >= 3 for reason in reasons.values()), reasons
    # The two commands of the README are what .ci/run runs, word for word.
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lines = [
        line
        for block in blocks(ROOT / "README.md")
        if block.reason
        for line in block.code.splitlines()
        if line.startswith("pip install")
    ]
    assert len(lines) == 2
    assert all(f"'{line}'" in gate or f'"{line}"' in gate for line in lines)


def test_a_block_that_fails_is_found(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="model is called 'no-such-model'"):
        run(["bash", "-c", "puna show no-such-model"], "", tmp_path, environment)
