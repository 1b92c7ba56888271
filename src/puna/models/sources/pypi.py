"""Asking pip where a wheel is, so that a user's own index, mirror, proxy and certificates are honoured."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

from puna.errors import DownloadError

__all__ = ["find_wheel", "pip_certificates"]

_TIMEOUT_S = 180


def find_wheel(package: str, version: str, file_name: str) -> tuple[str, str | None]:
    """Find the URL of a wheel on the package index that pip is set up to use; downloads no wheel.

    Args:
        package: name of the package.
        version: its exact version.
        file_name: the wheel that is wanted.

    Returns:
        The URL (``https:``, ``http:`` or ``file:``) and the SHA-256 that the index states, if it does.

    Raises:
        DownloadError: pip is not there or too old, the index cannot be reached, or has no such wheel.
    """
    requirement = f"{package}=={version}"
    done = _run_pip(
        "install", "--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:",
        "--disable-pip-version-check", "--no-input", "--retries=2", "--quiet", "--report=-", requirement,
    )  # fmt: skip
    if done.returncode:
        raise DownloadError(f"pip cannot find {requirement}: {_reason(done.stderr)}")
    url, sha256 = _download_info(done.stdout, requirement)
    found = unquote(urlsplit(url).path).rpartition("/")[2]
    if found != file_name:
        raise DownloadError(f"the package index must offer {file_name} for {requirement}, got {found!r}")
    return url, sha256


def pip_certificates() -> str | None:
    """Path of the certificate file that pip is set up to trust (its setting ``cert``), None without one."""
    done = _run_pip("config", "list", "--disable-pip-version-check")
    paths = dict(re.findall(r"^(:env:|install|global)\.cert=(.*)$", done.stdout, flags=re.MULTILINE))
    for section in (":env:", "install", "global"):  # pip's own order of precedence
        if section in paths:
            return str(ast.literal_eval(paths[section]))
    return None


def _run_pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-m", "pip", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"pip did not answer within {_TIMEOUT_S} s; look at the network connection and try again"
        ) from error
    except OSError as error:
        raise DownloadError(f"pip cannot be started with {sys.executable!r}: {error}") from error


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    last = (errors or lines or ["it gave no reason"])[-1]
    if any("Retrying (" in line for line in lines):
        return f"{last}; the package index cannot be reached, look at the network connection"
    return last


def _download_info(report: str, requirement: str) -> tuple[str, str | None]:
    try:
        info: dict[str, Any] = json.loads(report)["install"][0]["download_info"]
        url, sha256 = info["url"], info["archive_info"].get("hashes", {}).get("sha256")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"pip's report about {requirement} has no `download_info`; Puna needs pip 23.2 or later, "
            "run `python -m pip install --upgrade pip`"
        ) from error
    return str(url), sha256
