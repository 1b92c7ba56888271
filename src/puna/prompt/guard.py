"""The prompts of Llama Guard 3, which judges the last message of a conversation."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from puna.errors import PromptFormatError, nearest
from puna.prompt.format import text_only
from puna.prompt.llama3 import Llama3Format
from puna.prompt.messages import Assistant, Content, Image, Message, System, Tool, User, parts_of
from puna.prompt.preamble import Preamble
from puna.tokens import Tokenizer

__all__ = ["CATEGORIES", "GUARDS", "GuardFormat", "GuardModel", "guard_model", "guard_prompt"]

CATEGORIES: Mapping[str, str] = {
    "S1": "Violent Crimes.",
    "S2": "Non-Violent Crimes.",
    "S3": "Sex Crimes.",
    "S4": "Child Exploitation.",
    "S5": "Defamation.",
    "S6": "Specialized Advice.",
    "S7": "Privacy.",
    "S8": "Intellectual Property.",
    "S9": "Indiscriminate Weapons.",
    "S10": "Hate.",
    "S11": "Self-Harm.",
    "S12": "Sexual Content.",
    "S13": "Elections.",
    "S14": "Code Interpreter Abuse.",
}
"""What the models were taught to look for, in the words of their prompts."""

_PROMPT = """\
Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy \
with the below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
{categories}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

{conversation}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST {role} message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories."""

# What would pass for a part of the prompt itself: its marks, and lines that begin another message.
_MARK = re.compile(r"<(?=(?:BEGIN|END) (?:UNSAFE CONTENT CATEGORIES|CONVERSATION)>)", re.IGNORECASE)
_TURN = re.compile(r"(?<=\n)(?=(?:User|Agent|Assistant|System|Tool):)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardModel:
    """A release of Llama Guard 3.

    Attributes:
        name: as the catalogue has it.
        categories: those that it was taught.
        reads_images: it judges a picture with the text.
    """

    name: str
    categories: tuple[str, ...]
    reads_images: bool = False


_ALL = tuple(CATEGORIES)
GUARDS = {
    guard.name: guard
    for guard in (
        GuardModel(name="llama-guard-3-8b", categories=_ALL),
        GuardModel(name="llama-guard-3-1b", categories=_ALL[:-1]),
        GuardModel(name="llama-guard-3-11b-vision", categories=_ALL[:-1], reads_images=True),
    )
}


def guard_model(name: str) -> GuardModel:
    """The release of that name, in any precision: ``llama-guard-3-1b-int4`` is ``llama-guard-3-1b``.

    Raises:
        PromptFormatError: there is none.
    """
    found = next(
        (guard for known, guard in GUARDS.items() if name == known or name.startswith(f"{known}-")), None
    )
    if found is None:
        raise PromptFormatError(f"no guard model is called {name!r}; {nearest(name, GUARDS)}")
    return found


def guard_prompt(messages: Sequence[Message], categories: Mapping[str, str], *, agent: str = "Agent") -> str:
    """Write what a guard model is asked.

    Texts are trimmed. A text cannot pass for another message or for a part of the prompt: a space goes
    before what would.

    Args:
        messages: a conversation; its last message is judged, the user's or the assistant's.
        categories: what to look for, by code.
        agent: what the assistant is called. The models were taught "Agent"; llama-stack writes "Assistant".

    Raises:
        PromptFormatError: there is no message to judge, or nothing to look for.
    """
    if not messages or not isinstance(messages[-1], User | Assistant):
        found = type(messages[-1]).__name__.lower() if messages else "none"
        raise PromptFormatError(
            f"the message to judge, the last one, must be the user's or the assistant's, got {found}"
        )
    if not categories:
        raise PromptFormatError("a guard model needs at least one category to look for")
    names = {User: "User", Assistant: agent, System: "System", Tool: "Tool"}
    return _PROMPT.format(
        role=names[type(messages[-1])],
        categories="\n".join(f"{code}: {meaning}" for code, meaning in categories.items()),
        conversation="\n\n".join(f"{names[type(m)]}: {_disarmed(m.text)}" for m in messages),
    )


def _disarmed(text: str) -> str:
    return _TURN.sub(" ", _MARK.sub("< ", text.strip()))


class GuardFormat:
    """Asks a guard model about a conversation, in one message of the user's.

    The ids end where the verdict begins: ``safe``, or ``unsafe`` and a line of category codes.

    Attributes:
        name: the model's.
        stop_ids: tokens after which the model is done.
        call_form: how calls would be spelled; a guard makes none.
        categories: what is looked for, by code.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        name: str = "llama-guard-3-8b",
        *,
        categories: Mapping[str, str] | None = None,
        excluded: Collection[str] = (),
    ) -> None:
        """Set up a guard.

        Args:
            tokenizer: the model's.
            name: which model it is; see `guard_model`.
            categories: what to look for, by code, in the words that the model is to read; None for what it
                was taught.
            excluded: codes that are left out.

        Raises:
            PromptFormatError: there is no such model or code, or the vocabulary is not Llama 3's.
        """
        guard = guard_model(name)
        known = {code: CATEGORIES[code] for code in guard.categories} if categories is None else categories
        unknown = sorted(set(excluded) - set(known))
        if unknown:
            raise PromptFormatError(f"no category is called {unknown[0]!r}; {nearest(unknown[0], known)}")
        self.categories = {code: text for code, text in known.items() if code not in excluded}
        self.name = guard.name
        self._format = Llama3Format(tokenizer, "llama3.2-vision" if guard.reads_images else "llama3.1")
        self.stop_ids = self._format.stop_ids
        self.call_form = self._format.call_form

    def encode_chat(
        self, messages: Sequence[Message], *, continue_last: bool = False, preamble: Preamble | None = None
    ) -> list[int]:
        """See `ChatFormat.encode_chat`; the newest picture of the user's goes before the question.

        Raises:
            PromptFormatError: as `guard_prompt`; tools are offered or a verdict is to be continued, which
                a guard has no use for; or there is a picture and the model takes none.
        """
        if continue_last or (preamble is not None and preamble.offered):
            raise PromptFormatError(
                "a guard model judges a conversation; it has no tools and continues nothing"
            )
        images = [part for m in messages for part in parts_of(m.content) if isinstance(part, Image)]
        return self._format.encode_chat([User((*images[-1:], guard_prompt(messages, self.categories)))])

    def encode_text(self, content: Content) -> list[int]:
        """See `ChatFormat.encode_text`."""
        return self._format.encode_text(text_only(content, "plain completion with a guard model"))
