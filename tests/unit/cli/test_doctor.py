from __future__ import annotations

import json

import puna as package
from puna import _native
from puna.cli.diagnosis import diagnose
from puna.models.catalogue import DEFAULT_MODEL


def test_json(puna, store_home):
    done = puna("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["puna"] == package.__version__
    assert facts["store"]["PUNA_HOME"] == str(store_home)
    assert [model["name"] for model in facts["store"]["models"]] == [DEFAULT_MODEL]
    assert facts["store"]["models"][0]["bytes"] == 98_362_432
    paths = facts["instruction_sets"]
    assert [*paths["available"], *paths["missing"]] == [
        name for wanted in (True, False) for name, is_supported in _native.isas() if is_supported is wanted
    ]
    assert paths["active"] in paths["available"]
    assert set(facts["packages"]) == {"torch", "transformers"}


def test_a_forced_instruction_set(puna):
    facts = json.loads(puna("doctor", "--json", PUNA_ISA="scalar").stdout)
    assert (facts["instruction_sets"]["active"], facts["instruction_sets"]["PUNA_ISA"]) == (
        "scalar",
        "scalar",
    )
    assert any("only the plain path is in use" in problem for problem in facts["problems"])


def test_an_instruction_set_that_is_not_there(puna):
    done = puna("doctor", PUNA_ISA="mmx")
    assert done.returncode == 0
    assert "instruction set        none\n" in done.stdout
    assert (
        "problem                PUNA_ISA=mmx cannot be used (instruction set 'mmx' is unknown" in done.stdout
    )


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("PUNA_HOME", str(file))
    assert f"nothing can be written to {file}: set PUNA_HOME to another folder" in diagnose()["problems"]


def test_little_room(monkeypatch, tmp_path):
    monkeypatch.setattr("puna.cli.diagnosis._free_bytes", lambda folder: 5)
    assert any("has only 5 bytes free" in problem for problem in diagnose()["problems"])
