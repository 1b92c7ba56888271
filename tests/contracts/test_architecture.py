"""The table of what must hold, in ARCHITECTURE.md, names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contracts.source import ROOT

FOLDERS = (ROOT, ROOT / "tests", ROOT / "src" / "puna", ROOT / "src" / "puna" / "server")


def test_the_files_of_the_invariants_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", text.split("| invariant |")[1].split("\n## ")[0], re.M)
    assert rows
    cells = [cell for _, enforced, shown in rows for cell in (enforced, shown)]
    assert [name for cell in cells for name in missing(cell)] == []


def missing(cell: str) -> list[str]:
    """Paths of a cell that lead nowhere; each may begin at the folder of the one before it."""
    lost = []
    folders: tuple[Path, ...] = FOLDERS
    for name in re.findall(r"`([\w*]*[/.][\w*/.]*)`", cell):
        found = [path for folder in folders for path in folder.glob(name)]
        if found:
            folders = (found[0].parent, *FOLDERS)
        else:
            lost.append(name)
    return lost
