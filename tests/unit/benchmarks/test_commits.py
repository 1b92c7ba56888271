"""Two commits side by side; both are this one here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import commits
from benchmarks.commits import compare_values
from benchmarks.measures import MEASURES

from puna.evaluate.speed import Spread


def test_ratios_are_of_pairs():
    """Medians of 10 and 10, yet every round was slower but one."""
    found = compare_values(MEASURES["decode-64"], [10.0, 20.0, 5.0], [9.0, 10.0, 10.0], limit=0.05)
    assert found.ratio == Spread(median=0.9, low=0.5, high=2.0)
    assert found.is_regression


@pytest.mark.parametrize(
    ("measure", "second", "is_regression"),
    [
        ("decode-64", 9.6, False), ("decode-64", 9.4, True), ("decode-64", 20.0, False),
        ("cold-start", 10.4, False), ("cold-start", 10.6, True), ("cold-start", 1.0, False),
    ],
)  # fmt: skip
def test_what_is_worse_depends_on_the_measure(measure: str, second: float, is_regression: bool):
    found = compare_values(MEASURES[measure], [10.0] * 3, [second] * 3, limit=0.05)
    assert found.is_regression is is_regression


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-branch"], "there is no commit 'no-such-branch' in "),
        (["HEAD", "--output=x"], "unrecognized arguments: --output=x"),
        (["HEAD", "--limit", "1.5"], "must be from 0 to 1, got 1.5"),
        (["HEAD", "--measures", "speed"], "no measure is called 'speed'"),
        (["HEAD", "--shape", "llama9"], "no shape is called 'llama9'"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as refused:
        commits.main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_build_comes_before_the_package_that_is_installed(tmp_path: Path):
    """An editable one, too, which no search path comes before; numpy is this environment's."""
    (commits.environment(tmp_path / "built") / "puna.py").write_text("here = __file__")
    code = "import numpy, puna; print(puna.here)"
    done = subprocess.run(
        [tmp_path / "built/bin/python", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith(str(tmp_path))


def test_the_whole_command_with_one_build(
    tmp_path: Path,
    store_home: Path,
    default_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Files of both commits have the same size, whatever the machine does; a worse one sets the status."""
    monkeypatch.setenv("PUNA_HOME", str(store_home))
    monkeypatch.setattr(commits, "_resolve", lambda name: name * 40)
    monkeypatch.setattr(commits, "_build", lambda commit, folder: Path(sys.executable))
    result = tmp_path / "result.json"
    arguments = ["a", "b", "--shape", "smollm2-135m-instruct", "--measures", "file-size", "--repeats", "2"]
    arguments += ["--work", str(tmp_path / "work"), "--json", str(result), "--threads", "1"]
    assert commits.main(arguments) == 0
    assert "1.000x (1.000 to 1.000)" in capsys.readouterr().out
    report = json.loads(result.read_text())
    assert report["commits"] == {"first": "a" * 40, "second": "b" * 40}
    assert report["file"] == "default-puna"
    (found,) = report["comparisons"]
    n_bytes = sum(f.stat().st_size for f in (tmp_path / f"work/{'a' * 40}/models").rglob("*") if f.is_file())
    assert found["first"] == found["second"] == [n_bytes / 1e6] * 2

    extra = tmp_path / f"work/{'b' * 40}/models/smollm2-135m-instruct/extra"
    extra.write_bytes(bytes(n_bytes // 5))
    assert commits.main(arguments) == 1
    assert "1.200x (1.200 to 1.200)  WORSE" in capsys.readouterr().out
