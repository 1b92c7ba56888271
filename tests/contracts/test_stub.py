"""The committed types of the native library are those it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.contracts.source import SRC


def test_the_stub_is_what_nanobind_generates_now(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "nanobind.stubgen",
        "--quiet",
        "-m",
        "puna._native",
        "-r",
        "-O",
        tmp_path,
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    generated = {path.name: path.read_text() for path in (tmp_path / "_native").iterdir()}
    committed = {path.name: path.read_text() for path in (SRC / "puna" / "_native").iterdir()}
    assert generated == committed, "run `make snapshots` after a change of csrc/bindings"
