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
from puna.errors import PromptFormatError, PunaError
from puna.models.store import home
from puna.prompt.messages import Assistant, Message, User

if TYPE_CHECKING:
    from puna.engine.request import Completion
    from puna.llama import Llama

__all__ = ["Repl"]


class Repl:
    """Reads, answers and prints until the user leaves.

    Attributes:
        llama: the model.
        conversation: what was said; commands may replace it.
        last: the last answer.
    """

    def __init__(
        self, llama: Llama, conversation: Conversation, *, shows_stats: bool, is_raw: bool = False
    ) -> None:
        """Prepare a conversation.

        Args:
            llama: an instruct model.
            conversation: where to begin.
            shows_stats: print what it cost behind every answer.
            is_raw: print prompts and answers as the model has them, special tokens included.

        Raises:
            PromptFormatError: it is a base model.
        """
        if llama.info.chat_format == "base":
            raise PromptFormatError(
                f"{llama.info.name} is a base model, it has no chat format; use `puna complete`, or an "
                "instruct model"
            )
        self.llama = llama
        self.conversation = conversation
        self.last: Completion | None = None
        self._shows_stats = shows_stats
        self._is_raw = is_raw
        self._console = Console(highlight=False)

    def run(self) -> None:
        """Talk until Ctrl-D or /exit."""
        session = prompt_session(home() / "history", [command.name for command in COMMANDS])
        context = self.llama.engine.context_tokens
        self.say(f"{self.llama.info.name}, {context} tokens of context; /help lists commands, Ctrl-D ends")
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
        prompt = self.llama.encode_chat(messages)
        stream = self.llama.stream(prompt, **self.conversation.options())
        with stream, cancelling(stream):
            if self._is_raw:
                print_raw(self.llama, prompt, stream)
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
        return len(self.llama.encode_chat(self.conversation.messages(self.conversation.turns)))

    def say(self, text: str) -> None:
        """Print a line that is not the model's."""
        self._console.print(visible(text), style="dim", markup=False, soft_wrap=True)
