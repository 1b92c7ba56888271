from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from puna.cli.commands import COMMANDS
from puna.cli.conversation import SETTINGS, Conversation
from puna.cli.repl import Repl
from puna.cli.talker import LocalTalker
from puna.errors import CapacityError, ConfigError, PromptFormatError
from puna.llama import Llama
from puna.prompt.messages import Assistant, System, User


@pytest.fixture
def repl(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> Repl:
    """A conversation whose answers are not computed: what they would answer is in `asked`."""
    repl = Repl(LocalTalker(llama), Conversation(), shows_stats=False)
    repl._console = Console(file=io.StringIO(), width=200)
    repl.asked = []  # type: ignore[attr-defined]
    monkeypatch.setattr(repl, "answer", repl.asked.append)  # type: ignore[attr-defined]
    return repl


def said(repl: Repl) -> str:
    text = repl._console.file.getvalue()  # type: ignore[attr-defined]
    repl._console.file = io.StringIO()
    return text


def test_help_names_every_command(repl):
    repl.take("/help")
    lines = said(repl).splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == [command.name for command in COMMANDS]


def test_set_changes_shows_and_lists(repl):
    repl.take("/set temperature 0.25")
    assert said(repl) == "temperature = 0.25\n"
    repl.take("/set stop THE END")
    assert repl.conversation.settings.stop == "THE END"
    said(repl)
    repl.take("/set")
    lines = said(repl).splitlines()
    assert [line.split(" = ")[0] for line in lines] == list(SETTINGS)
    assert {"temperature = 0.25", "stop = THE END", "seed = none"} <= set(lines)
    with pytest.raises(ConfigError, match="needs a name and a value, got only 'seed'"):
        repl.take("/set seed")


def test_system_message(repl):
    repl.take("/system")
    repl.take("/system Be brief.")
    assert said(repl) == "no system message is set\nsystem: Be brief.\n"
    assert repl.conversation.messages([User("a")]) == [System("Be brief."), User("a")]
    repl.take("/system none")
    assert repl.conversation.system is None


def test_clear_keeps_settings(repl):
    repl.conversation = Conversation("s", [User("a"), Assistant("b")])
    repl.take("/clear")
    assert (repl.conversation.system, repl.conversation.turns) == ("s", [])


def test_save_and_load(repl, tmp_path):
    repl.conversation = Conversation("s", [User("a"), Assistant("b")])
    repl.take(f"/save {tmp_path / 'my talk.json'}")
    assert len(json.loads((tmp_path / "my talk.json").read_text())["messages"]) == 3
    repl.take("/clear")
    repl.take(f"/load {tmp_path / 'my talk.json'}")
    assert repl.conversation == Conversation("s", [User("a"), Assistant("b")])
    assert "loaded 2 turns" in said(repl)
    with pytest.raises(ConfigError, match="/load needs the name of a file"):
        repl.take("/load")


def test_stats_tell_the_context(repl, llama):
    repl.conversation.turns = [User("a"), Assistant("b")]
    repl.take("/stats")
    n_tokens = len(llama.encode_chat([User("a"), Assistant("b")]))
    assert said(repl) == f"context: {n_tokens} of 8192 tokens used\n"


def test_retry_and_exit(repl):
    repl.conversation.turns = [User("a"), Assistant("b")]
    repl.take("/retry")
    assert repl.asked == [[User("a")]]
    with pytest.raises(EOFError):
        repl.take("/exit")


def test_what_is_a_command_and_what_is_not(repl):
    with pytest.raises(ConfigError, match="no command is called '/loda'; did you mean '/load'"):
        repl.take("/loda x")
    repl.take('"""\n/loda x\n"""')
    repl.take("  ")
    repl.take("hello\nyou")
    assert repl.asked == [[User("/loda x")], [User("hello\nyou")]]


def test_a_conversation_that_does_not_fit_changes_nothing(llama):
    repl = Repl(LocalTalker(llama), Conversation(turns=[User("a"), Assistant("b")]), shows_stats=False)
    with pytest.raises(CapacityError, match=r"the prompt has [0-9]+ tokens and at most 8191 fit"):
        repl.take("hum " * 9000)
    assert repl.conversation.turns == [User("a"), Assistant("b")]


def test_a_base_model_is_refused(llama, monkeypatch):
    monkeypatch.setattr(llama, "info", type("Info", (), {"name": "llama-base", "chat_format": "base"}))
    with pytest.raises(PromptFormatError, match=r"llama-base is a base model, .* use `puna complete`"):
        Repl(LocalTalker(llama), Conversation(), shows_stats=False)
