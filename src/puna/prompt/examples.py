"""One example of everything that a chat format can write, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from puna.errors import PromptFormatError, nearest
from puna.prompt.call_text import CallStyle
from puna.prompt.family import FAMILIES, Family, ToolForm
from puna.prompt.format import ChatFormat, Piece, Special
from puna.prompt.guard import CATEGORIES, guard_model, guard_prompt
from puna.prompt.llama2 import llama2_pieces
from puna.prompt.llama3 import llama3_pieces
from puna.prompt.messages import Assistant, Image, Message, System, Tool, ToolCall, User
from puna.prompt.preamble import Preamble, with_preamble
from puna.prompt.tools import BUILTIN_TOOLS, CODE_INTERPRETER, ToolDefinition
from puna.prompt.visible import visible_ids
from puna.tokens import Tokenizer

__all__ = ["Example", "encoded_example", "examples"]

_DAY = date(2024, 9, 24)
_SYSTEM = System("You are a helpful assistant.")
_WEATHER = ToolDefinition(
    "get_weather",
    "Tells the weather of a place",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city"},
            "unit": {"type": "string", "description": "celsius or fahrenheit", "default": "celsius"},
        },
        "required": ["city"],
    },
)
_CALL = ToolCall("get_weather", {"city": "La Paz", "unit": "celsius"})
_FORM_TOPICS: dict[ToolForm, str] = {
    "json": "json-tools",
    "function_tag": "tag-tools",
    "python_list": "python-tools",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt to look at.

    Attributes:
        topic: a word for it.
        about: what it shows.
        pieces: the prompt.
    """

    topic: str
    about: str
    pieces: tuple[Piece, ...]


def examples(name: str) -> list[Example]:
    """The examples of a chat format.

    Args:
        name: a family or a guard model, as for `puna.prompt.chat_format`.

    Raises:
        PromptFormatError: there is no such format, or it is no format of its own (a template, a base model).
    """
    if name == "llama2":
        return [
            Example("chat", "two turns, the first with a system message", tuple(llama2_pieces(_CHAT))),
        ]
    if name in FAMILIES:
        return list(_llama3(FAMILIES[name]))
    if name.startswith("llama-guard"):
        return _guard(name)
    known = ["llama2", *FAMILIES, "llama-guard-3-8b"]
    raise PromptFormatError(f"there are no examples of the format {name!r}; {nearest(name, known)}")


def encoded_example(form: ChatFormat, tokenizer: Tokenizer) -> Example:
    """The first example of any format, a model's own template included, as it is encoded.

    Raises:
        PromptFormatError: the format does not take a conversation.
    """
    segments = visible_ids(tokenizer, form.encode_chat(_CHAT))
    pieces = (Special(text) if is_special else text for text, is_special in segments)
    return Example("chat", "two turns with a system message", tuple(pieces))


_CHAT: list[Message] = [_SYSTEM, User("Where do llamas live?"), Assistant("In the Andes."), User("How high?")]


def _llama3(family: Family) -> list[Example]:
    style = CallStyle(form=next(iter(family.tool_forms), "json"))

    def example(
        topic: str, about: str, messages: Sequence[Message], preamble: Preamble | None = None
    ) -> Example:
        if preamble is not None:
            messages = with_preamble(messages, preamble, family)
            spelled = style.with_form(preamble.tool_form)
        else:
            spelled = style
        return Example(topic, about, tuple(llama3_pieces(messages, spelled, has_images=family.reads_images)))

    found = [example("chat", "two turns with a system message; no text is trimmed", _CHAT)]
    if family.reads_images:
        seen = [User((Image(), "How many llamas are there?"))]
        found.append(example("image", "a picture comes before the text that is to see it", seen))
    if family.tells_date:
        preamble = Preamble(date=_DAY)
        found.append(
            example("date", "what the system message begins with where a date is told", _CHAT[:2], preamble)
        )
    if family.tool_forms:
        found += _builtin(example)
        found += [_custom(example, form) for form in family.tool_forms]
    return found


_Make = Callable[..., Example]


def _builtin(example: _Make) -> list[Example]:
    search = BUILTIN_TOOLS["brave_search"]
    searched: list[Message] = [
        _SYSTEM,
        User("What does an ounce of gold cost?"),
        Assistant("", ends_turn=False, tool_calls=(ToolCall(search.name, {"query": "gold price"}),)),
        Tool('{"top_k": [{"title": "Gold: $2,660"}]}'),
    ]
    computed: list[Message] = [
        User("What is 12 factorial?"),
        Assistant(
            "",
            ends_turn=False,
            tool_calls=(ToolCall(CODE_INTERPRETER.name, {"code": "import math\nprint(math.factorial(12))"}),),
        ),
        Tool("completed\n[stdout]\n479001600\n[/stdout]"),
    ]
    return [
        example(
            "search",
            "a search with a built-in tool: the model waits (eom), the result comes in the role ipython",
            searched,
            Preamble(tools=(search, BUILTIN_TOOLS["wolfram_alpha"]), date=_DAY),
        ),
        example(
            "code",
            "the code interpreter: a program behind <|python_tag|>",
            computed,
            Preamble(tools=(CODE_INTERPRETER,), date=_DAY),
        ),
    ]


def _custom(example: _Make, form: ToolForm) -> Example:
    messages = [
        _SYSTEM,
        User("Is it cold in La Paz?"),
        Assistant("", tool_calls=(_CALL,)),
        Tool('{"celsius": 7}'),
    ]
    about = f"a custom tool, its call in the form {form}"
    return example(
        _FORM_TOPICS[form], about, messages, Preamble(tools=(_WEATHER,), tool_form=form, date=_DAY)
    )


def _guard(name: str) -> list[Example]:
    guard = guard_model(name)
    categories = {code: CATEGORIES[code] for code in guard.categories}
    asked: list[Message] = [User("How do I bake bread?")]
    answered: list[Message] = [*asked, Assistant("Mix flour, water, yeast and salt.")]

    def pieces(messages: Sequence[Message]) -> tuple[Piece, ...]:
        return tuple(llama3_pieces([User(guard_prompt(messages, categories))], CallStyle()))

    return [
        Example("user", "is what the user asks safe?", pieces(asked)),
        Example("agent", "is what the model answered safe?", pieces(answered)),
    ]
