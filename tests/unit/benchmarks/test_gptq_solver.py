"""The table of GPTQ's solvers: that both solve, never how fast."""

from __future__ import annotations

import re

import pytest
import torch
from benchmarks.gptq_solver import llm_compressor, main, measure, problem, puna


def test_every_solver_leaves_less_than_rounding_to_nearest() -> None:
    solvers = {"no-clipping": puna("no-clipping"), "search": puna("search")}
    peer = llm_compressor()
    if peer is not None:
        solvers["peer"] = peer
    for seconds, left in measure(solvers, 64, 96, 1).values():
        assert seconds > 0
        assert left < 0.95


def test_problems_are_the_same_every_time() -> None:
    for ours, again in zip(problem(8, 32), problem(8, 32), strict=True):
        assert torch.equal(ours, again)


def test_the_table_has_every_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    main(["--divide", "32", "--passes", "1", "--threads", "1"])
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    for name in ("query, key, value", "gate, up", "down"):
        [line] = [line for line in lines if line.startswith(name)]
        assert re.search(
            r"puna, no-clipping: \d+\.\d\d s 0\.\d{3}   puna, search: \d+\.\d\d s 0\.\d{3}", line
        )
