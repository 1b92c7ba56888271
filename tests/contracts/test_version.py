"""One version, told in three places."""

from __future__ import annotations

import re
import tomllib

from tests.contracts.source import ROOT

import puna


def test_pyproject_package_and_changelog_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == puna.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", changelog, flags=re.MULTILINE)
    assert newest, "CHANGELOG.md has no heading such as `## [0.1.0] - unreleased`"
    assert newest[1] == puna.__version__


def test_pre_commit_uses_the_versions_of_the_test_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {row for row in project["optional-dependencies"]["test"] if "==" in row}
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    used = re.findall(r"[\w-]+==[\w.]+", hooks)
    assert set(used) <= pinned
    assert {row.split("==")[0] for row in used} == {"clang-format", "codespell", "mypy", "ruff"}
