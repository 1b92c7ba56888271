"""Where something was measured, in more detail than `puna.evaluate.machine` has it."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from puna import _native
from puna.evaluate.machine import this_machine

__all__ = ["commit_of", "describe", "load_average"]

ROOT = Path(__file__).parents[1]


def describe() -> dict[str, Any]:
    """The machine as JSON: `this_machine`, and the kernel, the instruction set and the CPU's own flags."""
    return asdict(this_machine()) | {
        "kernel": platform.release(),
        "isa": _native.isa(),
        "isas": [name for name, is_supported in _native.isas() if is_supported],
        "cpu_flags": _cpu_flags(),
        "load_average": load_average(),
    }


def load_average() -> float | None:
    """Processes that ran or wanted to over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def commit_of(folder: Path = ROOT) -> str:
    """The commit of a checkout, with ``+`` where files differ from it; ``unknown`` outside of one."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_flags() -> list[str]:
    """What the CPU has of the instruction sets that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line[:5] in ("flags", "Featu")), [])
    wanted = ("avx2", "fma", "f16c", "avx_vnni", "avx512", "amx", "asimd", "i8mm", "bf16", "sve")
    return [flag for flag in flags if flag.startswith(wanted)]
