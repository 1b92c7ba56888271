"""The rotation's share of a step, and the way round in Meta's layout: both run and say what they found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import meta_round_trip, rotation
from benchmarks.random_checkpoint import SHAPES

TINY = {"dim": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 32, "ffn_dim": 128}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SHAPES, "tiny", replace(SHAPES["llama3.2-1b"], max_seq_len=8192, **TINY))  # type: ignore[arg-type]
    return "tiny"


def test_a_row_for_every_number_of_tokens(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    rotation.run(tiny, threads=1, passes=1)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [int(row[0]) for row in rows] == [1, 8, 256]
    assert all(float(cell) > 0 for row in rows for cell in row[1:3])


@pytest.mark.parametrize("method", sorted(meta_round_trip.ADDED))
def test_round_and_back(tiny: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta_round_trip.run(tiny, method, tmp_path)
    assert "the same bits in 513,024 logits of 4 tokens" in capsys.readouterr().out
    assert (tmp_path / "meta" / "tokenizer.model").is_file()
