"""From the sections of a ``tokenizer.json`` to the steps that the native encoder takes.

Every ``normalizer`` and ``pre_tokenizer`` that the world of Llama has comes down to three of them: put
something before a text, replace something in it, cut it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from puna._native.tokens import Step
from puna.errors import TokenizerError
from puna.models.tokenizer_json import GPT2_PATTERN, LLAMA3_PATTERN

__all__ = ["is_llama3", "normalizer_steps", "pre_tokenizer_steps"]

_MAX_STEPS = 64


def normalizer_steps(section: Any) -> list[Step]:
    """The steps of a ``normalizer``.

    Args:
        section: the file's section, None where it has none.

    Returns:
        Steps, in order.

    Raises:
        TokenizerError: it is damaged, or of a kind that Puna does not have.
    """
    return _all_steps("normalizer", "normalizers", section, _NORMALIZERS)


def pre_tokenizer_steps(section: Any) -> tuple[list[Step], bool]:
    """The steps of a ``pre_tokenizer``.

    Args:
        section: the file's section, None where it has none.

    Returns:
        Steps, in order, and whether pieces are spelled in GPT-2's alphabet after them.

    Raises:
        TokenizerError: it is damaged, or of a kind that Puna does not have.
    """
    kinds = [step.get("type") for step in _flat("pre_tokenizer", "pretokenizers", section)]
    if "ByteLevel" in kinds[:-1]:
        raise TokenizerError(
            "tokenizer.json: in `pre_tokenizer` ByteLevel must be the last, got " + _list(kinds)
        )
    steps = _all_steps("pre_tokenizer", "pretokenizers", section, _PRE_TOKENIZERS)
    return steps, kinds[-1:] == ["ByteLevel"]


def is_llama3(section: Any) -> bool:
    """Whether a ``pre_tokenizer``, read by `pre_tokenizer_steps` before, cuts text as Llama 3's does."""
    steps = _flat("pre_tokenizer", "pretokenizers", section)
    return any(step.get("pattern") == {"Regex": LLAMA3_PATTERN} for step in steps)


_Maker = Callable[[dict[str, Any]], list[Step]]


def _all_steps(name: str, inner: str, section: Any, makers: dict[str, _Maker]) -> list[Step]:
    steps: list[Step] = []
    for step in _flat(name, inner, section):
        kind = step.get("type")
        maker = makers.get(kind) if isinstance(kind, str) else None
        if maker is None:
            raise TokenizerError(
                f"tokenizer.json: `{name}` must be one of {_list([*makers, 'Sequence'])}, got {kind!r:.80}; "
                "Puna reads the vocabularies of Llamas, and no Llama has this"
            )
        try:
            steps += maker(step)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TokenizerError(f"tokenizer.json: `{name}` {kind} is damaged: {error!r:.100}") from error
        except TokenizerError as error:
            raise TokenizerError(f"tokenizer.json: `{name}` {kind}: {error}") from error
    return steps


def _flat(name: str, inner: str, section: Any) -> list[dict[str, Any]]:
    """The members of a sequence, of those within it too."""
    if section is None:
        return []
    waiting, found = [section], list[dict[str, Any]]()
    while waiting:
        step = waiting.pop(0)
        if not isinstance(step, dict) or len(waiting) + len(found) > _MAX_STEPS:
            raise TokenizerError(
                f"tokenizer.json: `{name}` must be at most {_MAX_STEPS} objects, got {section!r:.80}"
            )
        if step.get("type") == "Sequence":
            steps = step.get(inner)
            waiting[:0] = steps if isinstance(steps, list) else [steps]
        else:
            found.append(step)
    return found


def _list(kinds: list[Any]) -> str:
    return ", ".join(map(str, kinds))[:200]


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str) or not text:
        raise ValueError(f"needs text, got {text!r:.40}")
    return text.encode()


def _flag(step: dict[str, Any], key: str, otherwise: bool) -> bool:
    value = step.get(key, otherwise)
    if not isinstance(value, bool):
        raise ValueError(f"`{key}` must be true or false, got {value!r:.40}")
    return value


def _pattern(step: dict[str, Any]) -> tuple[bytes, bool]:
    """The pattern of a step, and whether it stands for itself."""
    ((kind, pattern),) = step["pattern"].items()
    if kind not in ("String", "Regex"):
        raise ValueError(f"`pattern` must be a String or a Regex, got {kind!r:.40}")
    return _bytes(pattern), kind == "String"


def _prepend(step: dict[str, Any]) -> list[Step]:
    return [Step.prepend(_bytes(step["prepend"]), "always")]


def _replace(step: dict[str, Any]) -> list[Step]:
    content = step["content"].encode()
    return [Step.replace(*_pattern(step), content)]


def _split(step: dict[str, Any]) -> list[Step]:
    return [Step.split(*_pattern(step), step["behavior"], _flag(step, "invert", False))]


def _byte_level(step: dict[str, Any]) -> list[Step]:
    first = [Step.prepend(b" ", "missing")] if _flag(step, "add_prefix_space", True) else []
    cut = (
        [Step.split(GPT2_PATTERN.encode(), False, "Isolated", False)]
        if _flag(step, "use_regex", True)
        else []
    )
    return first + cut


def _digits(step: dict[str, Any]) -> list[Step]:
    behavior = "Isolated" if _flag(step, "individual_digits", False) else "Contiguous"
    return [Step.split(rb"\p{N}", False, behavior, False)]


def _metaspace(step: dict[str, Any]) -> list[Step]:
    space, scheme = _bytes(step["replacement"]), step.get("prepend_scheme", "always")
    # The older way to say it; the two must agree.
    if not _flag(step, "add_prefix_space", True) and scheme != "never":
        raise ValueError(f"`add_prefix_space` is false, and `prepend_scheme` {scheme!r:.40}")
    when = {"always": "missing", "first": "first", "never": "never"}[scheme]
    cut = [Step.split(space, True, "MergedWithNext", False)] if _flag(step, "split", True) else []
    return [Step.replace(b" ", True, space), Step.prepend(space, when), *cut]


def _unicode(form: Literal["NFC", "NFD", "NFKC", "NFKD"], _step: dict[str, Any]) -> list[Step]:
    return [Step.call(lambda text: unicodedata.normalize(form, text.decode()).encode())]


_NORMALIZERS: dict[str, _Maker] = {
    "Prepend": _prepend,
    "Replace": _replace,
    "NFC": partial(_unicode, "NFC"),
    "NFD": partial(_unicode, "NFD"),
    "NFKC": partial(_unicode, "NFKC"),
    "NFKD": partial(_unicode, "NFKD"),
}
_PRE_TOKENIZERS: dict[str, _Maker] = {
    "ByteLevel": _byte_level,
    "Digits": _digits,
    "Metaspace": _metaspace,
    "Split": _split,
}
