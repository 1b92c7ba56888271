"""A conversation at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from puna.cli.answer import stats_text
from puna.cli.commands import COMMANDS, run_command
from puna.cli.conversation import Conversation
from puna.cli.keyboard import cancelling, prompt_session, quoted
from puna.cli.output import visible
from puna.cli.raw import print_raw
from puna.cli.render import MarkdownStream
from puna.errors import PunaError
from puna.models.store import home
from puna.prompt.messages import Assistant, Message, User

if TYPE_CHECKING:
    from puna.cli.talker import Talker
    from puna.engine.request import Completion
    from puna.llama import Llama

__all__ = ["Repl"]


class Repl:
    """Reads, answers and prints until the user leaves.

    Attributes:
        talker: who answers.
        conversation: what was said; commands may replace it.
        last: the last answer.
    """

    def __init__(
        self, talker: Talker, conversation: Conversation, *, shows_stats: bool, raw: Llama | None = None
    ) -> None:
        """Prepare a conversation.

        Args:
            talker: who answers.
            conversation: where to begin.
            shows_stats: print what it cost behind every answer.
            raw: the model, to print prompts and answers as it has them, special tokens included; None for
                text.
        """
        self.talker = talker
        self.conversation = conversation
        self.last: Completion | None = None
        self._shows_stats = shows_stats
        self._raw = raw
        self._console = Console(highlight=False)

    def run(self) -> None:
        """Talk until Ctrl-D or /exit."""
        session = prompt_session(home() / "history", [command.name for command in COMMANDS])
        context = self.talker.context_tokens
        self.say(f"{self.talker.name}, {context} tokens of context; /help lists commands, Ctrl-D ends")
        while True:
            try:
                self.take(session.prompt())
            except EOFError:
                return
            except KeyboardInterrupt:
                continue
            except PunaError as error:
                self.say(f"error: {error}")

    def take(self, line: str) -> None:
        """Do what a line says: a command, or something to be answered.

        Raises:
            EOFError: it was ``/exit``.
            PunaError: it cannot be done; the conversation is as it was.
        """
        text = quoted(line)
        if text is None and line.lstrip().startswith("/"):
            run_command(self, line)
            return
        text = line if text is None else text
        if text.strip():
            self.answer([*self.conversation.turns, User(text)])

    def answer(self, turns: list[Message]) -> None:
        """Print an answer to these turns; with it they become the conversation.

        What was said before Ctrl-C is kept. Where nothing was said, nothing changes.
        """
        messages = self.conversation.messages(turns)
        stream = self.talker.chat(messages, **self.conversation.options())
        with stream, cancelling(stream):
            if self._raw is not None:
                print_raw(self._raw, self._raw.encode_chat(messages), stream)
            else:
                with MarkdownStream(self._console) as printed:
                    for event in stream:
                        printed.feed(event.text)
        self.last = stream.result()
        if self.last.text:
            self.conversation.turns = [*turns, Assistant(self.last.text)]
        if self.last.finish_reason == "cancelled":
            self.say("(cancelled)")
        elif not self.last.text:
            self.say("(the model had nothing to say; your message is not kept)")
        elif self.last.finish_reason == "length":
            self.say("(cut off: `max_tokens` or the context is used up)")
        if self._shows_stats:
            self.say(stats_text(self.last))

    def used_tokens(self) -> int:
        """Tokens that the conversation takes of the context."""
        if not self.conversation.turns:
            return 0
        return self.talker.used_tokens(self.conversation.messages(self.conversation.turns))

    def say(self, text: str) -> None:
        """Print a line that is not the model's."""
        self._console.print(visible(text), style="dim", markup=False, soft_wrap=True)
