"""Which chat format a model gets."""

from __future__ import annotations

from puna.errors import PromptFormatError, nearest
from puna.models.checkpoint import Vocabulary
from puna.prompt.call_text import CallStyle
from puna.prompt.family import FAMILIES
from puna.prompt.format import BaseFormat, ChatFormat
from puna.prompt.guard import GUARDS, GuardFormat
from puna.prompt.images import IMAGE_TOKEN
from puna.prompt.llama2 import Llama2Format
from puna.prompt.llama3 import LLAMA3_MARKS, Llama3Format
from puna.prompt.template import TemplateFormat
from puna.tokens import Tokenizer

__all__ = ["chat_format", "find_format"]

_GUARD = "llama-guard-3"


def chat_format(
    vocabulary: Vocabulary, tokenizer: Tokenizer, name: str | None = None, *, style: CallStyle | None = None
) -> ChatFormat:
    """Make the chat format of a model.

    Args:
        vocabulary: what the checkpoint says about text.
        tokenizer: the same vocabulary, loaded.
        name: a family (``llama2``, ``llama3``, ``llama3.1``, ``llama3.2``, ``llama3.2-vision``,
            ``llama3.3``), a guard model (``llama-guard-3-8b``), ``template`` or ``base``; None finds it by
            what the vocabulary has, see `find_format`.
        style: how calls in a conversation are spelled, for the families from Llama 3 on; None for the
            family's usual form, escaped.

    Raises:
        PromptFormatError: there is no such format, or it does not suit the vocabulary.
    """
    if name is None or name == _GUARD:
        found = find_format(vocabulary, tokenizer)
        name = found if name is None or found.startswith(_GUARD) else f"{_GUARD}-8b"
    if name in FAMILIES:
        return Llama3Format(tokenizer, name, style=style)
    if name == "llama2":
        return Llama2Format(tokenizer)
    if name.startswith(_GUARD):
        return GuardFormat(tokenizer, name)
    if name == "base":
        return BaseFormat(tokenizer)
    if name != "template":
        known = ["base", "llama2", "template", *FAMILIES, *GUARDS]
        raise PromptFormatError(f"no chat format is called {name!r}; {nearest(name, known)}")
    if vocabulary.chat_template is None:
        raise PromptFormatError("the model has no chat template; name its format, such as llama3.1")
    return TemplateFormat(tokenizer, vocabulary.chat_template, vocabulary.special_tokens)


def find_format(vocabulary: Vocabulary, tokenizer: Tokenizer) -> str:
    """Tell a model's chat format from its vocabulary and its template.

    Meta's format goes before the model's own template, which would trim texts and add a date. Llama 3.3
    cannot be told from 3.1, whose template it has, and is taken for it; both read each other's calls.

    Returns:
        The format's name, as for `chat_format`.
    """
    template = vocabulary.chat_template or ""
    if any(tokenizer.special_id(text) is None for text in LLAMA3_MARKS):
        if "[INST]" in template and "<<SYS>>" in template:
            return "llama2"
        return "template" if template else "base"
    has_images = IMAGE_TOKEN in template
    if "<BEGIN UNSAFE CONTENT CATEGORIES>" in template:
        if has_images:
            return f"{_GUARD}-11b-vision"
        return f"{_GUARD}-8b" if "S14:" in template else f"{_GUARD}-1b"
    if template and LLAMA3_MARKS[0] not in template:
        return "template"
    if tokenizer.special_id("<|python_tag|>") is None:
        return "llama3"
    if has_images:
        return "llama3.2-vision"
    return "llama3.2" if "strftime_now" in template else "llama3.1"
