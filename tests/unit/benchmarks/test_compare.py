"""The whole command on the default model, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import commits, compare, neighbours, overhead, refusals, servers, soak
from benchmarks.engines import Times, Unsupported
from benchmarks.measures import MEASURES, Run, find
from benchmarks.process import Failed
from benchmarks.results import Report, read_report
from tests.contracts.source import ROOT

MODEL = "smollm2-135m-instruct"


def run(*arguments: object, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PUNA_HOME": str(store)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_whole_command(tmp_path: Path, store_home: Path, default_gguf: Path):
    arguments = [
        "--models", tmp_path, "--output", tmp_path / "out", "--shape", MODEL, "--engines", "puna",
        "--measures", "decode-64", "file-size", "--repeats", 1, "--threads", 1,
    ]  # fmt: skip
    done = run(*arguments, store=store_home)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "out" / "results.json")
    assert [(row.measure, row.label, row.problem) for row in report.rows] == [
        ("decode-64", "puna Q4_1", None),
        ("file-size", "puna Q4_1", None),
    ]
    assert all(len(row.values) == 1 and row.values[0] > 0 for row in report.rows)
    folder = tmp_path / MODEL
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert report.rows[1].values == [size / 1e6]
    whole = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    assert report.files == {"puna Q4_1": {"bytes": size, "sha256": hashlib.sha256(whole).hexdigest()}}
    # All weights are read for a token, as embedding and head are one.
    assert report.rows[0].facts["weight_bytes"] == pytest.approx(size, rel=0.05)
    assert len(report.stream_read["decode-64"]) == 1
    assert "answer after 64 tokens" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "chart.svg").read_text().startswith("<svg ")

    # What is there of this commit is not measured again.
    again = run(*arguments, store=store_home)
    assert again.returncode == 0
    assert read_report(tmp_path / "out" / "results.json").rows == report.rows
    # Another number of threads does not belong in the same table.
    refused = run(*arguments[:-1], 2, store=store_home)
    assert refused.returncode == 2
    assert (
        "is of another machine, shape, seed or number of threads; choose another --output" in refused.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measures", "speed"], "no measure is called 'speed'; there are decode-64, "),
        (["--shape", "llama9"], "no shape is called 'llama9'; there are llama3.2-1b, "),
        (["--engines", "vllm"], "invalid choice: 'vllm'"),
        (["--repeats", "0"], "must be at least 1, got 0"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as refused:
        compare.main(["--models", str(tmp_path), "--output", str(tmp_path / "out"), *arguments])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_patterns_keep_the_order_of_the_table():
    assert [m.name for m in find(["prefill-*", "decode-64"])] == [
        "decode-64", "prefill-64", "prefill-512", "prefill-2048",
    ]  # fmt: skip
    assert len(find(["*"])) == len(MEASURES)


class FakeProcess:
    """An engine whose values are told in advance; an exception among them is raised."""

    log: list[str]
    values: dict[str, list[Any]]

    def __init__(self, job: Any, timeout_s: float) -> None:
        self.name = job.engine
        self.log.append(f"+{self.name}")

    def value(self) -> float:
        self.log.append(self.name)
        value = self.values[self.name].pop(0)
        if isinstance(value, Exception):
            raise value
        return float(value)

    def facts(self) -> dict[str, float]:
        return {}

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    FakeProcess.log, FakeProcess.values = [], {}
    monkeypatch.setattr(compare, "Process", FakeProcess)
    return FakeProcess


def measure(name: str, engines: str, repeats: int) -> list[Any]:
    candidates = [compare.Candidate(engine, "f", Path("p")) for engine in engines]
    report = Report(shape="s", seed=0, threads=1, machine={})
    return compare.measure_all(MEASURES[name], candidates, report, repeats, 1.0)


def test_rounds_go_through_all_engines_and_begin_with_another_each_time(fake: type[FakeProcess]):
    fake.values = {"a": [1, 2, 3], "b": [4, 5, 6], "c": [7, 8, 9]}
    rows = measure("prefill-64", "abc", 3)
    assert [row.values for row in rows] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert fake.log == ["+a", "a", "+b", "b", "+c", "c", *"bca", *"cab"]


def test_fresh_measures_get_a_process_for_each_value(fake: type[FakeProcess]):
    fake.values = {"a": [1, 2], "b": [3, 4]}
    measure("cold-start", "ab", 2)
    assert fake.log == ["+a", "a", "+b", "b", "+b", "b", "+a", "a"]


def test_more_rounds_than_engines(fake: type[FakeProcess]):
    fake.values = {"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]}
    rows = measure("prefill-64", "ab", 4)
    assert [row.values for row in rows] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_an_engine_that_fails_does_not_stop_the_others(fake: type[FakeProcess]):
    fake.values = {"a": [1, Failed("it broke")], "b": [2, 3, 4], "c": [Unsupported("no batches")]}
    a, b, c = measure("prefill-64", "abc", 3)
    assert (a.values, a.problem) == ([1], "it broke")
    assert (b.values, b.problem) == ([2, 3, 4], None)
    assert (c.values, c.problem) == ([], "unsupported, no batches")


class TimedEngine:
    """An engine with times that are known."""

    def __init__(self, cached_tokens: int = 0) -> None:
        self.prompts: list[list[int]] = []
        self._cached = cached_tokens

    def run(self, prompt: list[int], n_new: int) -> Times:
        self.prompts.append(prompt)
        return Times(0.5, 0.25 * (n_new - 1), self._cached)

    def run_together(self, prompts: list[list[int]], n_new: int) -> None:
        self.prompts += prompts

    def facts(self) -> dict[str, float]:
        return {}


def test_prompts_are_new_for_prefill_and_stay_for_decode():
    for name, value, n_different in (("prefill-512", 1024.0, 3), ("decode-64", 4.0, 1)):
        engine = TimedEngine()
        given = Run(Path("p"), 0.0, lambda engine=engine: engine, seed=1)  # type: ignore[misc]
        MEASURES[name].prepare(given)
        assert [MEASURES[name].value(given) for _ in range(2)] == [value, value]
        assert len({tuple(prompt) for prompt in engine.prompts}) == n_different
        assert {len(prompt) for prompt in engine.prompts} == {int(name.rpartition("-")[2])}


def test_a_cache_may_not_help_prefill():
    given = Run(Path("p"), 0.0, lambda: TimedEngine(cached_tokens=16), seed=1)
    with pytest.raises(RuntimeError, match="16 tokens of a new prompt were known before"):
        MEASURES["prefill-64"].value(given)


def test_every_option_and_measure_is_documented():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    headings = (
        "## Two commits|## A server under load|## Beside llama.cpp's server|## What the server adds|"
        "## How soon a full server refuses|## How long an answer waits behind a prompt"
    )
    modules = compare, commits, soak, servers, overhead, refusals, neighbours
    for module, text in zip(modules, re.split(headings, page), strict=True):
        parser = module._parser()
        options = {o for action in parser._actions for o in action.option_strings if o[:2] == "--"}
        told = {
            name
            for row in re.findall(r"^\| (.+?) \|", text, flags=re.MULTILINE)
            for name in re.findall(r"--[a-z-]+", row)
        }
        assert told == options - {"--help"}
    assert set(MEASURES) <= set(re.findall(r"`([a-z]+-[a-z0-9]+)`", page))


def test_the_measuring_process_says_why_it_died(tmp_path: Path):
    from benchmarks.process import Job, Process

    job = Job("puna", str(tmp_path / "nothing"), "prefill-64", 1, 0)
    with pytest.raises(Failed, match=r"no model is called .*nothing.* \(status 1\)"):
        Process(job, 60.0)


def test_results_are_json_without_surprises(tmp_path: Path):
    from benchmarks.machine import commit_of, describe

    machine = json.loads(json.dumps(describe()))
    assert {"cpu", "usable_cpus", "memory_bytes", "kernel", "isa", "isas", "load_average"} <= set(machine)
    assert machine["isa"] in machine["isas"]
    assert commit_of(tmp_path) == "unknown"
