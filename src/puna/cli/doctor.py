"""``puna doctor``: what this machine and this installation have, and what is wrong with them."""

from __future__ import annotations

from typing import Any

from puna.cli import options
from puna.cli.output import print_json, print_rows, size_text

__all__ = ["doctor"]


def doctor(as_json: options.Json = False) -> None:
    """Check the machine and the installation."""
    from puna.cli.diagnosis import diagnose

    facts = diagnose()
    if as_json:
        print_json(facts)
    else:
        print_rows(_rows(facts))


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    paths, store = facts["instruction_sets"], facts["store"]
    memory, free = facts["memory_bytes"], store["free_bytes"]
    return [
        ("puna", facts["puna"]),
        ("python", facts["python"]),
        ("platform", facts["platform"]),
        ("cpu", f"{facts['cpu']}, {facts['usable_cpus']} usable"),
        ("memory", "unknown" if memory is None else size_text(memory)),
        ("instruction set", paths["active"] or "none"),
        ("  available", ", ".join(paths["available"]) or "none"),
        ("  not on this machine", ", ".join(paths["missing"]) or "none"),
        ("  PUNA_ISA", paths["PUNA_ISA"] or "not set"),
        ("PUNA_HOME", store["PUNA_HOME"]),
        ("  free", "unknown" if free is None else size_text(free)),
        *(("  model", f"{model['name']}, {size_text(model['bytes'])}") for model in store["models"]),
        *((name, version or "not installed") for name, version in facts["packages"].items()),
        *(("problem", text) for text in facts["problems"] or ["none found"]),
    ]
