"""A PostgreSQL of the tests' own: started where its programs are, in a folder that goes away."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "postgres"  # Debian's; root may not run it


def programs() -> Path:
    """The folder of initdb and postgres; skips where there is none."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not places:
        pytest.skip("no PostgreSQL here; install Debian's postgresql to run this")
    return places[-1]


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server for the length of a ``with`` block; gives the address of an empty database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed; the extra `postgres` has it")
    bin = programs()
    folder = Path(tempfile.mkdtemp(prefix="puna-pg-"))
    try:
        become: list[str] = []
        if os.geteuid() == 0:
            try:
                shutil.chown(folder, USER, USER)
            except LookupError:
                pytest.skip(f"PostgreSQL does not run as root and there is no user {USER}")
            # Not `user=` of `subprocess`, for which it forks, and that may never return where libraries that
            # compute have threads.
            become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]

        def run(program: str, *arguments: str) -> None:
            command = [*become, bin / program, *arguments]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

        data = str(folder / "data")
        run("initdb", "-D", data, "-U", "puna", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://puna@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
