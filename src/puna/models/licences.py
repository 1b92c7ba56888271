"""The terms that weights come under, and what they ask of who uses them, as data."""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import ConfigError

__all__ = ["APACHE_2", "Licence", "check_derived_name", "llama_licence"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """Terms of use.

    Attributes:
        name: SPDX name where there is one.
        url: where the text is.
        duties: what a user must do or may not, a sentence each; not the licence itself.
        name_prefix: how the name of a model derived from the weights must begin; empty where it is free.
    """

    name: str
    url: str
    duties: tuple[str, ...]
    name_prefix: str = ""


APACHE_2 = Licence(
    name="Apache-2.0",
    url="https://www.apache.org/licenses/LICENSE-2.0",
    duties=("who passes the weights on passes on the licence and its notices",),
)

_PASS_ON = "who passes the weights on passes on the licence and its NOTICE line"
_BUILT_WITH = 'a product that contains or builds on the weights shows "Built with Llama"'
_NAME = 'a model that is trained on the weights or their outputs has a name that begins with "Llama"'
_NO_TRAINING = "the outputs may not be used to improve another large language model"
_SCALE = "a company with more than 700 million monthly users needs a licence of its own from Meta"
_NOT_EU = "the multimodal models are not licensed to individuals or companies domiciled in the European Union"
_PATHS = {
    "2": "llama2",
    "3": "llama3",
    "3.1": "llama3_1",
    "3.2": "llama3_2",
    "3.3": "llama3_3",
    "4": "llama4",
}


def llama_licence(version: str, *, is_multimodal: bool = False) -> Licence:
    """One of Meta's community licences.

    Args:
        version: ``2``, ``3``, ``3.1``, ``3.2``, ``3.3`` or ``4``.
        is_multimodal: the weights take images.
    """
    if version == "2":
        duties: tuple[str, ...] = (_PASS_ON, _NO_TRAINING, _SCALE)
    elif version == "3":
        duties = (_BUILT_WITH, _PASS_ON, _NAME, _NO_TRAINING, _SCALE)
    else:
        duties = (_BUILT_WITH, _PASS_ON, _NAME, _SCALE)
    return Licence(
        name=f"Llama {version} Community License",
        url=f"https://www.llama.com/{_PATHS[version]}/license",
        duties=(*duties, _NOT_EU) if is_multimodal else duties,
        name_prefix="" if version == "2" else "Llama",
    )


def check_derived_name(name: str, licence: Licence) -> None:
    """Insist that a derived model is called as the licence of the original asks, in any case of letters.

    Args:
        name: what the derived model is to be called; a path's last part where it is a path.
        licence: that of the weights it is derived from.

    Raises:
        ConfigError: the name does not begin as it must.
    """
    prefix = licence.name_prefix
    if not name.lower().startswith(prefix.lower()):
        raise ConfigError(
            f"the {licence.name} asks that the name of a derived model begins with {prefix!r}, got {name!r}; "
            f"call it {prefix}-{name}"
        )
