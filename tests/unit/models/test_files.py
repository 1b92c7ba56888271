from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest

from puna.models.files import map_file


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="needs a system with large pages"
)
def test_weights_are_mapped_in_large_pages_where_the_system_has_them(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(4 * 2**20))
    mapped = map_file(path)
    maps = Path("/proc/self/smaps").read_text()
    flags = re.search(rf" {re.escape(str(path))}\n(?:[A-Z].*\n)*?VmFlags: (.*)", maps)
    assert flags is not None
    assert "hg" in flags[1].split()
    assert not mapped.any()


def test_a_system_without_large_pages_maps_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345, raising=False)  # what no system knows
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    assert map_file(path).tobytes() == b"abc"
