"""The slash commands of a conversation: one row of `COMMANDS` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from puna.cli.answer import stats_text
from puna.cli.conversation import SETTINGS, Conversation
from puna.errors import ConfigError, nearest

if TYPE_CHECKING:
    from puna.cli.repl import Repl

__all__ = ["COMMANDS", "Command", "run_command"]


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command.

    Attributes:
        usage: its name and what follows it.
        help: what it does, in a line.
        run: does it, with the text behind the name.
    """

    usage: str
    help: str
    run: Callable[[Repl, str], None]

    @property
    def name(self) -> str:
        """The name, slash included."""
        return self.usage.split(" ")[0]


def run_command(repl: Repl, line: str) -> None:
    """Do what a line that begins with a slash says.

    Raises:
        ConfigError: no command has that name, or its argument is wrong.
        PunaError: whatever the command raises.
        EOFError: the conversation is over.
    """
    name, _, argument = line.strip().partition(" ")
    for command in COMMANDS:
        if command.name == name:
            command.run(repl, argument.strip())
            return
    raise ConfigError(f"no command is called {name!r}; {nearest(name, [c.name for c in COMMANDS])}")


def _help(repl: Repl, _: str) -> None:
    width = max(len(command.usage) for command in COMMANDS) + 2
    for command in COMMANDS:
        repl.say(f"{command.usage:<{width}}{command.help}")
    repl.say('Enter sends, Alt-Enter or Ctrl-J begins a new line; so does Enter between lines of """.')
    repl.say("Ctrl-C ends an answer or clears the line, Ctrl-D ends the conversation.")


def _system(repl: Repl, text: str) -> None:
    if text:
        repl.conversation.system = None if text == "none" else text
    told = repl.conversation.system
    repl.say("no system message is set" if told is None else f"system: {told}")


def _clear(repl: Repl, _: str) -> None:
    repl.conversation.turns = []
    repl.say("everything said so far is forgotten")


def _save(repl: Repl, file: str) -> None:
    path = _path("/save", file)
    repl.conversation.save(path)
    repl.say(f"saved {len(repl.conversation.turns)} turns to {path}")


def _load(repl: Repl, file: str) -> None:
    path = _path("/load", file)
    repl.conversation = Conversation.load(path)
    repl.say(f"loaded {len(repl.conversation.turns)} turns from {path}")


def _set(repl: Repl, text: str) -> None:
    name, _, value = text.partition(" ")
    if name and not value:
        raise ConfigError(f"/set needs a name and a value, got only {name!r}; known: {', '.join(SETTINGS)}")
    if name:
        repl.conversation.set(name, value.strip())
    for each in SETTINGS:
        if each == name or not name:
            value = getattr(repl.conversation.settings, each)
            repl.say(f"{each} = {'none' if value in (None, ()) else value}")


def _stats(repl: Repl, _: str) -> None:
    used = repl.used_tokens()
    repl.say(f"context: {used} of {repl.talker.context_tokens} tokens used")
    if repl.last is not None:
        repl.say(f"last answer: {stats_text(repl.last)}")


def _retry(repl: Repl, _: str) -> None:
    repl.answer(repl.conversation.up_to_last_user())


def _exit(_repl: Repl, _: str) -> None:
    raise EOFError


def _path(command: str, file: str) -> Path:
    if not file:
        raise ConfigError(f"{command} needs the name of a file")
    return Path(file).expanduser()


COMMANDS = (
    Command("/help", "list the commands", _help),
    Command("/system [TEXT]", "set the system message (none: remove it), or show it", _system),
    Command("/clear", "forget what was said; system message and settings stay", _clear),
    Command("/save FILE", "write the conversation to a file", _save),
    Command("/load FILE", "go on with a conversation from a file", _load),
    Command("/set [NAME VALUE]", "change a setting (none: its neutral value), or list them", _set),
    Command("/stats", "tell how full the context is and how fast the last answer came", _stats),
    Command("/retry", "answer the last message anew", _retry),
    Command("/exit", "end the conversation", _exit),
)
