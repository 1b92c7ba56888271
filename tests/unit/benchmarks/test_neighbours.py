from __future__ import annotations

import json
from pathlib import Path

from benchmarks import neighbours
from tests.tiny import save_tiny


def test_two_engines_read_prompts_beside_an_answer(tmp_path: Path) -> None:
    model, figures = tmp_path / "tiny", tmp_path / "figures.json"
    model.mkdir()
    save_tiny(model)
    options = ["--prompt-tokens", "80", "--vocabulary", "250", "--rounds", "2", "--json", str(figures)]
    assert neighbours.main([str(model), *options]) == 0
    rounds = json.loads(figures.read_text())["rounds"]
    assert [set(each) for each in rounds] == [{"fewer", "even"}] * 2
    assert all(value > 0 for each in rounds for times in each.values() for value in times.values())
