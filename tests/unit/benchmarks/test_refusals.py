from __future__ import annotations

import json
from pathlib import Path

from benchmarks import refusals
from tests.tiny import save_tiny


def test_all_that_ask_a_full_server_are_refused(tmp_path: Path) -> None:
    model, figures = tmp_path / "tiny", tmp_path / "figures.json"
    model.mkdir()
    save_tiny(model)
    refusals.main([str(model), "--clients", "8", "--rounds", "2", "--json", str(figures)])
    written = json.loads(figures.read_text())
    assert len(written["rounds"]) == 2
    for each in written["rounds"]:
        assert each["slowest_ms"] >= each["median_ms"] > 0
    assert sum(each["refused"] for each in written["rounds"]) > 0
