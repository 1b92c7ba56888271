"""Which chat format a model gets."""

from __future__ import annotations

from puna.models.checkpoint import Vocabulary
from puna.prompt.format import BaseFormat, ChatFormat
from puna.prompt.llama3 import LLAMA3_MARKS, Llama3Format
from puna.prompt.template import TemplateFormat
from puna.tokens import Tokenizer

__all__ = ["chat_format"]


def chat_format(vocabulary: Vocabulary, tokenizer: Tokenizer) -> ChatFormat:
    """Choose the format by what the vocabulary has.

    Args:
        vocabulary: what the checkpoint says about text.
        tokenizer: the same vocabulary, loaded.

    Returns:
        `Llama3Format` where the special tokens of Llama 3 are there (Meta's format goes before the
        model's own template, which would trim texts and add a date), else `TemplateFormat` where
        there is a template, else `BaseFormat`.
    """
    if all(tokenizer.special_id(text) is not None for text in LLAMA3_MARKS):
        return Llama3Format(tokenizer)
    if vocabulary.chat_template is not None:
        return TemplateFormat(tokenizer, vocabulary.chat_template, vocabulary.special_tokens)
    return BaseFormat(tokenizer)
