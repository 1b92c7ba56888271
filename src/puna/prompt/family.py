"""What the releases of Llama were taught, where their chat formats differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from puna.errors import PromptFormatError, nearest

__all__ = ["FAMILIES", "Family", "ToolForm", "family"]

ToolForm = Literal["json", "function_tag", "python_list"]
"""How a model spells calls of custom tools: ``{"name": "f", ...}``, ``<function=f>{...}</function>`` or
``[f(a=1)]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One of Llama's chat formats.

    Attributes:
        name: as the catalogue has it.
        tool_forms: forms of custom tool calls that it knows, the usual one first; none where it was taught
            no tools.
        tells_date: its system message begins with the dates, as 3.1's does.
        reads_images: it takes pictures.
    """

    name: str
    tool_forms: tuple[ToolForm, ...] = ()
    tells_date: bool = False
    reads_images: bool = False


_ROWS = (
    Family(name="llama3"),
    Family(name="llama3.1", tool_forms=("json", "function_tag"), tells_date=True),
    Family(name="llama3.2", tool_forms=("python_list",)),
    Family(name="llama3.2-vision", tool_forms=("json", "function_tag"), tells_date=True, reads_images=True),
    Family(name="llama3.3", tool_forms=("python_list",)),
)

FAMILIES = {row.name: row for row in _ROWS}
"""The families that share Llama 3's headers, by name."""


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        PromptFormatError: there is none; the message lists those there are.
    """
    if name not in FAMILIES:
        raise PromptFormatError(f"no chat format is called {name!r}; {nearest(name, FAMILIES)}")
    return FAMILIES[name]
