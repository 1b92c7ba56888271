from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from puna import _native

_LARGE_PAGE = 2**21


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="needs a system with large pages"
)
def test_large_matrices_are_packed_into_large_pages() -> None:
    # Not a whole number of large pages: the last one would take memory that nothing needs.
    packed = _native.pack_values("bf16", np.zeros((1024 + 16, 2048), np.float32))
    n_pages = packed.nbytes // _LARGE_PAGE
    assert n_pages == 2
    first = packed.ctypes.data
    end = first + n_pages * _LARGE_PAGE
    assert first % _LARGE_PAGE == 0
    flags = _flags_of(first)
    assert "hg" in flags
    assert "hg" not in _flags_of(end)


def _flags_of(address: int) -> list[str]:
    """Those of the mapping that an address is in."""
    for entry in re.finditer(
        r"^([0-9a-f]+)-([0-9a-f]+) .*\n(?:[A-Z].*\n)*?VmFlags: (.*)$",
        Path("/proc/self/smaps").read_text(),
        re.MULTILINE,
    ):
        if int(entry[1], 16) <= address < int(entry[2], 16):
            return entry[3].split()
    raise AssertionError(f"{address:#x} is mapped nowhere")
