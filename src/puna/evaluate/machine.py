"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import puna

__all__ = ["Machine", "this_machine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A machine and the software on it.

    Attributes:
        platform: operating system, its version and the architecture.
        cpu: name of the processor.
        usable_cpus: CPUs that this process may use.
        memory_bytes: main memory, None where the system does not tell.
        python: version of Python.
        puna: version of Puna.
    """

    platform: str
    cpu: str
    usable_cpus: int
    memory_bytes: int | None
    python: str
    puna: str


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    return Machine(
        platform=platform.platform(),
        cpu=_cpu_name(),
        usable_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        python=platform.python_version(),
        puna=puna.__version__,
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
