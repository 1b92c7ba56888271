"""What no file of the project may hold."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest
from tests.contracts.source import ROOT, SRC

# Of a developer's machine; `~/`, `$HOME/` and relative paths are fine.
MACHINE_PATH = re.compile(r"(?<![\w.$}~/-])/(home|root|tmp|Users|work|mnt|scratch)/\w")
# Written in parts, or this file would be the first to be found.
REGISTRY_HOST = re.compile(r"py" r"pi\.org|pythonhosted" r"\.org|deb" r"ian\.org|npm" r"js\.(org|com)")
MAX_LINES = 600


def tracked() -> dict[str, str]:
    """Text files that git knows or would add, by path."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.decode().strip()}")
    files = {}
    for name in done.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and b"\0" not in (data := path.read_bytes()):
            files[name] = data.decode("utf-8")
    assert "pyproject.toml" in files
    return files


def matches(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip():.100}"
        for name, text in tracked().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    assert MACHINE_PATH.search("see " + "/home" + "/ada/puna")
    assert matches(MACHINE_PATH) == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    assert REGISTRY_HOST.search("https://py" + "pi.org/simple")
    assert matches(REGISTRY_HOST) == []


def test_python_files_are_short() -> None:
    lengths = {name: len(text.splitlines()) for name, text in tracked().items() if name.endswith(".py")}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: str(path.relative_to(SRC)))
def test_comments_are_ascii(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    assert [(token.start[0], token.string) for token in comments if not token.string.isascii()] == []


def test_native_sources_are_ascii() -> None:
    paths = [path for kind in ("*.h", "*.cpp") for path in (ROOT / "csrc").rglob(kind)]
    assert paths
    assert [str(path) for path in paths if not path.read_bytes().isascii()] == []
