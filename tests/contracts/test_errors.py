"""The tree at the top of errors.py is the tree of the classes, and the command line exits as it says."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import puna.errors
from puna import _native
from puna.errors import PunaError

CLASSES = {
    name: kind
    for name, kind in vars(puna.errors).items()
    if inspect.isclass(kind) and kind.__module__ == "puna.errors"
}
NODE = re.compile(
    r"(?P<indent>(?:\|  |   )*)(?:[|`]- )?(?P<name>\w+Error)(?: \((?P<mixin>\w+)\))?( {2,}(?P<text>.+))?"
)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Each class of the drawing with its parent and what else it derives from."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in inspect.cleandoc(puna.errors.__doc__ or "").splitlines():
        if not line.startswith("    "):
            continue
        node = NODE.fullmatch(line[4:])
        assert node, f"not a line of the tree: {line!r}"
        depth = len(node["indent"]) // 3 + ("- " in line[4:].split(node["name"])[0])
        path[depth:] = [node["name"]]
        tree[node["name"]] = (path[depth - 1] if depth else None, node["mixin"])
        assert node["text"] or depth == 0, f"say when {node['name']} is raised"
    return tree


def test_the_tree_is_drawn_as_it_is() -> None:
    found = {}
    for name, kind in CLASSES.items():
        if name == "PunaError":
            found[name] = (None, None)
            continue
        parent, *others = (base.__name__ for base in kind.__bases__)
        found[name] = (parent, others[0] if others else None)
    assert drawn() == found
    assert len(found) == 14


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_is_documented_and_public(name: str) -> None:
    assert vars(CLASSES[name])["__doc__"], f"{name} has no docstring of its own"
    assert name in puna.errors.__all__


def test_exit_codes() -> None:
    codes = {name: kind.exit_code for name, kind in CLASSES.items()}
    wrong_arguments = {"ConfigError", "ConstraintError", "UnknownModelError"}
    assert codes == {name: 2 if name in wrong_arguments else 1 for name in CLASSES}


def test_native_errors_are_puna_errors() -> None:
    with pytest.raises(puna.errors.NativeError, match=r"'sse' is unknown.*available: .*scalar") as caught:
        _native.set_isa("sse")
    assert isinstance(caught.value, PunaError)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("show", "smollm2-135m-instuct"), 2, "did you mean 'smollm2-135m-instruct'?"),
        (("show", "model.gguf"), 1, "puna: error: {folder}/model.gguf"),
        (
            ("complete", "--temperature", "3", "smollm2", "hum"),
            2,
            "`temperature` must be a number from 0 to 2, got 3.0",
        ),
    ],
)
def test_the_command_line_exits_with_the_class_s_code(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    arguments = tuple(str(tmp_path / "model.gguf") if a == "model.gguf" else a for a in arguments)
    done = subprocess.run(
        [sys.executable, "-m", "puna", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert message.format(folder=tmp_path) in done.stderr
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
