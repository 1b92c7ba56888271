"""The chat format of a model that brings its own Jinja template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from puna.errors import PromptFormatError
from puna.prompt.format import check_continues, encode_plain
from puna.prompt.messages import Assistant, Message, System, Tool, User
from puna.prompt.shield import Shield, unused_characters
from puna.tokens import Tokenizer

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["TemplateFormat"]

_ROLE_NAMES: dict[type[Message], str] = {
    System: "system",
    User: "user",
    Assistant: "assistant",
    Tool: "tool",
}

# The largest templates have 20,000 characters.
_MAX_TEMPLATE_CHARACTERS = 1_048_576
# A template may print each message a few times over, and a page of its own.
_MAX_OVERHEAD_CHARACTERS = 1_048_576
_MAX_COPIES = 4


class TemplateFormat:
    """Renders the template, then encodes; only special tokens that the template prints become ids.

    The same ids as transformers' ``apply_chat_template``, unless a message holds the text of a
    special token: transformers makes it that token, Puna never does. A template that takes message
    text apart and prints it in another order is outside of that promise.
    """

    name = "template"

    def __init__(self, tokenizer: Tokenizer, template: str, special_tokens: Mapping[str, str]) -> None:
        """Keep the template; it is compiled at first use.

        Args:
            tokenizer: the model's vocabulary.
            template: the model's own Jinja template.
            special_tokens: texts that the template may print by name (``bos_token``).
        """
        self._tokenizer = tokenizer
        self._source = template
        self._names = dict(special_tokens)
        self.stop_ids = frozenset(tokenizer.eos_ids)

    def encode_chat(self, messages: Sequence[Message], *, continue_last: bool = False) -> list[int]:
        """See `ChatFormat.encode_chat`.

        Raises:
            PromptFormatError: the template is damaged or refuses these messages, or `continue_last` is
                set and the last message is not the assistant's or cannot be left open.
        """
        if continue_last:
            check_continues(messages)
        texts = [m.text for m in messages] + [m.name for m in messages if isinstance(m, Tool) and m.name]
        known = [self._source, *self._names.values(), *self._tokenizer.special_tokens]
        mark, end = unused_characters(texts + known, 2)
        limit = _MAX_OVERHEAD_CHARACTERS + 2 * _MAX_COPIES * sum(map(len, texts))
        raw = [self._as_dict(message, mark) for message in messages]
        if continue_last:
            raw[-1]["content"] += end
        template = self._template
        try:
            rendered = self._render(template, raw, limit, continue_last)
        except Exception as error:  # a template can raise whatever Python's operators do
            reason = str(error).replace(mark, "").replace(end, "")
            raise PromptFormatError(
                f"the model's chat template failed on these messages: {reason:.500}"
            ) from error
        if continue_last:
            rendered = _cut_at(end, rendered)
        return self._encode(rendered, mark)

    def encode_text(self, text: str) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return encode_plain(self._tokenizer, text)

    @cached_property
    def _shield(self) -> Shield:
        return Shield(self._tokenizer.special_tokens)

    @cached_property
    def _template(self) -> Template:
        from puna.prompt.jinja import compile_template

        if len(self._source) > _MAX_TEMPLATE_CHARACTERS:
            raise PromptFormatError(
                f"the model's chat template may have {_MAX_TEMPLATE_CHARACTERS} characters, "
                f"got {len(self._source)}"
            )
        try:
            return compile_template(self._source)
        except Exception as error:  # besides jinja2's own errors, Python's compiler has limits
            line = getattr(error, "lineno", None)
            where = f" (line {line})" if line else ""
            raise PromptFormatError(f"the model's chat template does not compile: {error}{where}") from error

    def _as_dict(self, message: Message, mark: str) -> dict[str, str]:
        raw = {
            "role": _ROLE_NAMES[type(message)],
            "content": self._shield.protect(message.text, mark),
        }
        if isinstance(message, Tool) and message.name is not None:
            raw["name"] = self._shield.protect(message.name, mark)
        return raw

    def _render(
        self, template: Template, messages: list[dict[str, str]], limit: int, continue_last: bool
    ) -> str:
        from puna.prompt.jinja import render

        variables: dict[str, Any] = {
            **self._names,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": not continue_last,
        }
        return render(template, variables, limit)

    def _encode(self, rendered: str, mark: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(self._shield.split(rendered)):
            if i % 2:
                ids.append(self._tokenizer.special_tokens[part])
            elif part:
                ids += self._tokenizer.encode(part.replace(mark, ""))
        return ids


def _cut_at(end: str, rendered: str) -> str:
    before, found, after = rendered.partition(end)
    if not found or end in after:
        raise PromptFormatError(
            "the model's chat template does not print the last message as it is and once, so it cannot be "
            "continued; ask for a new message instead"
        )
    return before
