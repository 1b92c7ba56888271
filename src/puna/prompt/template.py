"""The chat format of a model that brings its own Jinja template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from puna.errors import PromptFormatError
from puna.prompt.call_text import check_depth, spell_json
from puna.prompt.family import ToolForm
from puna.prompt.format import check_continues, encode_plain, text_only
from puna.prompt.messages import Assistant, Content, Image, Message, System, Tool, ToolCall, User
from puna.prompt.preamble import Preamble
from puna.prompt.shield import Shield, unused_characters
from puna.prompt.tool_prompts import custom_tools_prompt
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

# A word alone holds no special token and begins none: the names of fields, types, roles and tools.
_WORD = re.compile(r"\w[\w.-]*")

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
    call_form: ToolForm = "json"

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

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_last: bool = False,
        preamble: Preamble | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """See `ChatFormat.encode_chat`.

        Args:
            messages: the conversation so far.
            continue_last: leave the last message open.
            preamble: tools and the date, given to the template as transformers does: custom tools as
                ``tools``, names of built-in ones as ``builtin_tools``, the date to ``strftime_now`` and as
                ``date_string``.
            variables: more that this template can be told; their texts hold no special tokens either.

        Raises:
            PromptFormatError: the template is damaged or refuses these messages, the arguments of a call are
                nested too deep, or `continue_last` is set and the last message is not the assistant's or
                cannot be left open.
        """
        if continue_last:
            check_continues(messages)
        told = {**_told(preamble), **(variables or {})}
        raw = [_as_dict(message) for message in self._with_words(messages, preamble)]
        texts = [*_texts(raw), *_texts(told)]
        known = [self._source, *self._names.values(), *self._tokenizer.special_tokens]
        mark, end = unused_characters(texts + known, 2)
        limit = _MAX_OVERHEAD_CHARACTERS + 2 * _MAX_COPIES * sum(map(len, texts))
        raw, told = self._protected(raw, mark), self._protected(told, mark)
        if continue_last:
            raw[-1]["content"] = _opened(raw[-1]["content"], end)
        if preamble is not None and preamble.date is not None:
            told["strftime_now"] = preamble.date.strftime
        template = self._template
        try:
            rendered = self._render(template, {"messages": raw, **told}, limit, continue_last)
        except Exception as error:  # a template can raise whatever Python's operators do
            reason = str(error).replace(mark, "").replace(end, "")
            raise PromptFormatError(
                f"the model's chat template failed on these messages: {reason:.500}"
            ) from error
        if continue_last:
            rendered = _cut_at(end, rendered)
        return self._encode(rendered, mark)

    def encode_text(self, content: Content) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return encode_plain(self._tokenizer, text_only(content, "a model with a template"))

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

    def _with_words(self, messages: Sequence[Message], preamble: Preamble | None) -> Sequence[Message]:
        """Say in the messages what this template has no words for: calls, tools and the demand for a call."""
        if "tool_calls" not in self._source:
            messages = [_with_calls_as_text(message) for message in messages]
        if preamble is None:
            return messages
        custom = [tool for tool in preamble.offered if not tool.is_builtin]
        words = [preamble.demand] if preamble.demand else []
        if custom and "tools" not in self._source:
            words.insert(0, custom_tools_prompt(custom, "json"))
        if not words:
            return messages
        if messages and isinstance(messages[0], System):
            return [System("\n".join([messages[0].text, *words])), *messages[1:]]
        return [System("\n".join(words)), *messages]

    def _render(
        self, template: Template, variables: Mapping[str, Any], limit: int, continue_last: bool
    ) -> str:
        from puna.prompt.jinja import render

        known = {"tools": None, "documents": None, "add_generation_prompt": not continue_last}
        return render(template, {**self._names, **known, **variables}, limit)

    def _protected(self, value: Any, mark: str, *, is_said: bool = False) -> Any:
        """The same value with its texts protected; words that templates look for stay as they are."""
        if isinstance(value, str):
            is_word = not is_said and _WORD.fullmatch(value)
            return value if is_word else self._shield.protect(value, mark)
        if isinstance(value, Mapping):
            return {
                self._protected(k, mark): self._protected(v, mark, is_said=is_said or _is_said(k, v))
                for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._protected(item, mark, is_said=is_said) for item in value]
        return value

    def _encode(self, rendered: str, mark: str) -> list[int]:
        parts = self._shield.split(rendered)
        parts[::2] = [part.replace(mark, "") for part in parts[::2]]
        special = [self._tokenizer.special_tokens[text] for text in parts[1::2]]
        for i, token_id in enumerate(special):
            takes_before, takes_behind = self._tokenizer.trims.get(token_id, (False, False))
            if takes_before:
                parts[2 * i] = parts[2 * i].rstrip()
            if takes_behind:
                parts[2 * i + 2] = parts[2 * i + 2].lstrip()
        ids: list[int] = []
        for i, text in enumerate(parts[::2]):
            if text:
                ids += self._tokenizer.encode(text, continues=i > 0)
            ids += special[i : i + 1]
        return ids


def _is_said(key: Any, value: Any) -> bool:
    """Whether a field holds what people, models or tools say, rather than words that templates look for."""
    # Parts of a content have a `type`, and their words in a `text`.
    return key in ("text", "arguments") or (key == "content" and not isinstance(value, list))


def _told(preamble: Preamble | None) -> dict[str, Any]:
    if preamble is None:
        return {}
    told: dict[str, Any] = {}
    custom = [tool for tool in preamble.offered if not tool.is_builtin]
    builtin = [tool.name for tool in preamble.offered if tool.is_builtin]
    if custom:
        told["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
            }
            for t in custom
        ]
    if builtin:
        told["builtin_tools"] = builtin
    if preamble.date is not None:
        told["date_string"] = _short_date(preamble.date)
    return told


def _with_calls_as_text(message: Message) -> Message:
    """A message whose calls stand behind its words, spelled as `custom_tools_prompt` asks for them."""
    if not isinstance(message, Assistant) or not message.tool_calls:
        return message
    said = [text for text in (message.text, *map(spell_json, message.tool_calls)) if text]
    return replace(message, content="\n".join(said), tool_calls=())


def _short_date(day: date) -> str:
    return day.strftime("%d %b %Y")


def _as_dict(message: Message) -> dict[str, Any]:
    """A message as templates know it: OpenAI's way, but arguments as objects."""
    raw: dict[str, Any] = {"role": _ROLE_NAMES[type(message)], "content": _content(message.content)}
    if isinstance(message, User) and message.context is not None:
        raw["content"] = _opened(raw["content"], "\n\n" + User(message.context).text)
    if isinstance(message, Assistant) and message.tool_calls:
        raw["tool_calls"] = [_call(call) for call in message.tool_calls]
    if isinstance(message, Tool):
        named = {"name": message.name, "tool_call_id": message.call_id}
        raw |= {key: value for key, value in named.items() if value is not None}
        if message.value is not None:
            raw["content"] = dict(message.value)
    return raw


def _content(content: Content) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [{"type": "image"} if isinstance(p, Image) else {"type": "text", "text": p} for p in content]


def _call(call: ToolCall) -> dict[str, Any]:
    check_depth(call, call.arguments)
    function = {"name": call.name, "arguments": dict(call.arguments)}
    return {"type": "function", "function": function} | ({} if call.id is None else {"id": call.id})


def _opened(content: str | list[dict[str, Any]], end: str) -> str | list[dict[str, Any]]:
    """A content with a text at its end."""
    return content + end if isinstance(content, str) else [*content, {"type": "text", "text": end}]


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _cut_at(end: str, rendered: str) -> str:
    before, found, after = rendered.partition(end)
    if not found or end in after:
        raise PromptFormatError(
            "the model's chat template does not print the last message as it is and once, so it cannot be "
            "continued; ask for a new message instead"
        )
    return before
