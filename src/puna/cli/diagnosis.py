"""What `puna doctor` finds out about a machine and an installation."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from puna.errors import NativeError, PunaError
from puna.evaluate.machine import this_machine

__all__ = ["diagnose"]

_OPTIONAL = ("torch", "transformers")
_LITTLE_BYTES = 1_000_000_000  # the default model, its packed copy and some room


def diagnose() -> dict[str, Any]:
    """Look at everything that Puna depends on; nothing is changed and nothing fetched.

    Returns:
        JSON values; ``problems`` lists what was found wrong, each with what to do about it.
    """
    problems: list[str] = []
    return {
        **asdict(this_machine()),
        "instruction_sets": _instruction_sets(problems),
        "store": _store(problems),
        "packages": {name: _version(name) for name in _OPTIONAL},
        "problems": problems,
    }


def _instruction_sets(problems: list[str]) -> dict[str, Any]:
    forced = os.environ.get("PUNA_ISA") or None
    try:
        from puna import _native
    except ImportError as error:
        problems.append(f"the native library cannot be loaded ({error}): install Puna again for this Python")
        return {"active": None, "available": [], "missing": [], "PUNA_ISA": forced}
    paths = _native.isas()
    available = [name for name, is_supported in paths if is_supported]
    try:
        active = _native.isa()
    except NativeError as error:
        problems.append(f"PUNA_ISA={forced} cannot be used ({error}): unset it or set one of those")
        active = None
    if active == "scalar":
        problems.append("only the plain path is in use, which is slow: unset PUNA_ISA, or use a newer CPU")
    return {
        "active": active,
        "available": available,
        "missing": [name for name, is_supported in paths if not is_supported],
        "PUNA_ISA": forced,
    }


def _store(problems: list[str]) -> dict[str, Any]:
    from puna.models.store import home, installed

    folder = home()
    # The nearest folder that exists says what can be written, and on which disk.
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problems.append(f"nothing can be written to {existing}: set PUNA_HOME to another folder")
    free = _free_bytes(existing)
    if free is not None and free < _LITTLE_BYTES:
        problems.append(f"{existing} has only {free} bytes free: make room, or set PUNA_HOME to another disk")
    try:
        models = [{"name": m.name, "path": str(m.path), "bytes": m.n_bytes} for m in installed()]
    except PunaError as error:
        problems.append(str(error))
        models = []
    return {"PUNA_HOME": str(folder), "free_bytes": free, "models": models}


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
