"""Two commits of Puna side by side.

    python -m benchmarks.commits main HEAD

builds both in worktrees that are thrown away, runs them in turn as `benchmarks.compare` runs engines, and
tells the second over the first. Ends with status 1 where the second is slower, or takes more, than the limit
allows. The measuring code is this checkout's for both.
"""

from __future__ import annotations

import argparse
import json
import site
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.engines import ENGINES
from benchmarks.machine import ROOT, describe
from benchmarks.measures import Measure, find
from benchmarks.model_files import DEFAULT_SHAPE, offered
from benchmarks.options import positive, share
from benchmarks.process import Job, Process
from benchmarks.rounds import run_rounds
from puna.engine.native import default_threads
from puna.evaluate.speed import Spread

__all__ = ["Comparison", "compare_values", "main"]

_TIMEOUT_S = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One measure of both commits.

    Attributes:
        measure: its name.
        first: values of the first commit, a round each.
        second: those of the second.
        ratio: the second over the first, round by round.
        is_regression: the median ratio is worse than the limit allows.
    """

    measure: str
    first: list[float]
    second: list[float]
    ratio: Spread
    is_regression: bool


def compare_values(
    measure: Measure, first: Sequence[float], second: Sequence[float], limit: float
) -> Comparison:
    """Hold two series against each other; a pair of one round met the same machine."""
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    median = statistics.median(ratios)
    is_worse = median < 1 - limit if measure.more_is_better else median > 1 + limit
    return Comparison(
        measure=measure.name,
        first=list(first),
        second=list(second),
        ratio=Spread.of(ratios),
        is_regression=is_worse,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        measures = find(given.measures)
        kinds = [kind for kind in ENGINES["puna"].files.values() if kind in offered(given.shape)]
        hashes = [_resolve(name) for name in (given.first, given.second)]
    except ValueError as error:
        parser.error(str(error))
    wanted = f"puna-{given.format}"
    kind = wanted if wanted in kinds else kinds[0]
    with tempfile.TemporaryDirectory(prefix="puna-commits-") as temporary:
        work = given.work or Path(temporary)
        pythons = [_build(commit, work / commit) for commit in hashes]
        paths = [
            _model(python, kind, given.shape, given.seed, work / c)
            for c, python in zip(hashes, pythons, strict=True)
        ]
        comparisons = []
        for measure in measures:
            starts = [
                partial(_start, python, Job("puna", path, measure.name, given.threads, given.seed))
                for python, path in zip(pythons, paths, strict=True)
            ]
            outcomes = run_rounds(starts, given.repeats, is_fresh=measure.is_fresh)
            for name, outcome in zip((given.first, given.second), outcomes, strict=True):
                if outcome.problem is not None:
                    raise SystemExit(f"{name}: {measure.name}: {outcome.problem}")
            comparisons.append(compare_values(measure, outcomes[0].values, outcomes[1].values, given.limit))
            print(_line(comparisons[-1], measure), flush=True)
    if given.json is not None:
        report = {
            "commits": dict(zip(("first", "second"), hashes, strict=True)),
            "shape": given.shape, "file": kind, "seed": given.seed, "threads": given.threads,
            "machine": describe(), "comparisons": [asdict(comparison) for comparison in comparisons],
        }  # fmt: skip
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(comparison.is_regression for comparison in comparisons))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", metavar="FIRST", help="commit, branch or tag to compare with")
    parser.add_argument("second", metavar="SECOND", nargs="?", default="HEAD", help="default: HEAD")
    parser.add_argument("--shape", default=DEFAULT_SHAPE, help="of the model (default: %(default)s)")
    parser.add_argument("--format", choices=("int4", "bf16"), default="int4", help="of random weights")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and prompts")
    parser.add_argument(
        "--measures", nargs="+", default=["decode-64", "decode-4096", "prefill-64", "prefill-512"],
        metavar="NAME", help="names or patterns, as of benchmarks.compare (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=positive, default=9, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=default_threads(), help="default: all CPUs")
    parser.add_argument(
        "--limit", type=share, default=0.05, metavar="SHARE",
        help="how much worse the second may be (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value here")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep builds and models here")
    return parser


def _resolve(name: str) -> str:
    """The full hash of a commit.

    Raises:
        ValueError: there is no such commit.
    """
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ValueError(f"there is no commit {name!r} in {ROOT}")
    return done.stdout.strip()


def _build(commit: str, folder: Path) -> Path:
    """The Python that has a commit's package; built where it is not there yet."""
    built = folder.absolute() / "built"
    if built.exists():
        return _python_of(built)
    print(f"building {commit[:12]}", flush=True)
    source, unfinished = folder.absolute() / "source", built.with_name("unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    _git("worktree", "add", "--detach", "--force", str(source), commit)
    try:
        target = environment(unfinished)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        done = subprocess.run(
            [*pip, "--target", str(target), str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"{commit[:12]} does not build:\n{done.stderr}")
    finally:
        _git("worktree", "remove", "--force", str(source))
    unfinished.rename(built)
    return _python_of(built)


def environment(folder: Path) -> Path:
    """Make a virtual environment on top of this one's packages.

    What is installed in it comes first; beside a search path, an editable Puna of this one would.

    Args:
        folder: of the new one; one that is there is emptied.

    Returns:
        Where its packages go.
    """
    venv.EnvBuilder(clear=True, symlinks=True).create(folder)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return packages


def _python_of(built: Path) -> Path:
    return Path(sysconfig.get_path("scripts", "venv", {"base": str(built)})) / "python"


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)


def _model(python: Path, kind: str, shape: str, seed: int, folder: Path) -> str:
    """The model file, written by the commit's own code: formats may differ."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.model_files import model_file; "
        "print(model_file(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))"
    )
    done = subprocess.run(
        [python, "-c", code, kind, shape, str(seed), str(folder.absolute() / "models")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the model cannot be written:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def _start(python: Path, job: Job) -> Process:
    return Process(job, _TIMEOUT_S, python)


def _line(comparison: Comparison, measure: Measure) -> str:
    first, second = (statistics.median(v) for v in (comparison.first, comparison.second))
    ratio = comparison.ratio
    return (
        f"{comparison.measure:14} {first:10.2f} {second:10.2f} {measure.unit:6} "
        f"{ratio.median:.3f}x ({ratio.low:.3f} to {ratio.high:.3f})"
        f"{'  WORSE' if comparison.is_regression else ''}"
    )


if __name__ == "__main__":
    sys.exit(main())
