from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from puna.llama import Llama

OPTIONS = ["--temperature", "0", "--max-tokens", "200"]


class Talk:
    """``puna chat`` at a pseudo-terminal."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "puna", "chat", *OPTIONS, *options],
            # Without the first, the terminal would be asked where its cursor is.
            env={**environment, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "NO_COLOR": "1"},
            encoding="utf-8",
            dimensions=(40, 200),
            timeout=20,
        )
        self.child.expect("/help lists commands")

    def type(self, text: str) -> None:
        self.see(r"\x1b\[\?2004h")  # the prompt has the terminal
        self.child.send(text)

    def see(self, pattern: str) -> str:
        self.child.expect(pattern)
        return str(self.child.match.group(0))


@pytest.fixture
def talk(environment: dict[str, str]) -> Iterator[Talk]:
    talk = Talk(environment)
    yield talk
    talk.child.close(force=True)


def saved(talk: Talk, path: Path) -> list[dict[str, str]]:
    talk.type(f"/save {path}\r")
    talk.see("saved [0-9]+ turns")
    document = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return document["messages"]


def test_a_conversation(talk: Talk, llama: Llama, tmp_path: Path):
    """One process for the whole conversation: starting it is what takes the time."""
    talk.type("/system Be brief.\r")
    talk.see("system: Be brief.")
    talk.type("/set max_tokens 8\r")
    talk.see("max_tokens = 8")
    talk.type("Say\nhum\r")  # Ctrl-J is what a newline is at a terminal
    talk.see("cut off")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say\nhum"}]
    first = llama.chat(turns, temperature=0, max_tokens=8).result().text
    turns.append({"role": "assistant", "content": first})
    assert saved(talk, tmp_path / "a.json") == turns

    talk.type("/retry\r")
    talk.see("cut off")
    assert saved(talk, tmp_path / "b.json") == turns

    talk.type('"""\r/not a command\r"""\r')
    talk.see("cut off")
    turns.append({"role": "user", "content": "/not a command"})
    second = llama.chat(turns, temperature=0, max_tokens=8).result().text
    turns.append({"role": "assistant", "content": second})
    assert saved(talk, tmp_path / "c.json") == turns

    path = tmp_path / "d.json"
    path.write_text(json.dumps({"messages": turns[:3], "settings": {"seed": 5}}))
    talk.type(f"/load {path}\r")
    talk.see("loaded 2 turns")
    talk.type("/set\r")
    talk.see("seed = 5")
    talk.type("/stats\r")
    n_tokens = len(llama.encode_chat(turns[:3]))
    talk.see(f"context: {n_tokens} of 8192 tokens used")
    talk.see("last answer: .* 8 new tokens at")
    talk.type("/stat\r")
    talk.see("error: no command is called '/stat'; did you mean '/stats'")
    talk.type("\x04")
    talk.child.expect(pexpect.EOF)
    talk.child.close()
    assert talk.child.exitstatus == 0


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(talk: Talk, llama: Llama, tmp_path: Path):
    talk.type("this is thrown away")
    talk.see("thrown away")
    talk.child.sendintr()
    talk.type("/set max_tokens none\r")
    talk.see("max_tokens = none")
    asked = {"role": "user", "content": "Count from 1 to 2000, one number a line."}
    first = llama.chat([asked], temperature=0, max_tokens=1).result().text
    talk.type(asked["content"] + "\r")
    talk.see(r"\x1b\[\?2004l")  # the prompt has let go of the terminal
    talk.see(re.escape(first))
    talk.child.sendintr()
    talk.see("\\(cancelled\\)")
    question, answer = saved(talk, tmp_path / "a.json")
    assert question == asked
    n_tokens = len(llama.tokenizer.encode(answer["content"])) + 2
    whole = llama.chat([question], temperature=0, max_tokens=n_tokens).result().text
    assert answer["content"]
    assert whole.startswith(answer["content"].rstrip("\ufffd"))
    talk.type("/exit\r")
    talk.child.expect(pexpect.EOF)
    talk.child.close()
    assert talk.child.exitstatus == 0


def test_history_is_kept_for_its_owner_alone(talk: Talk, store_home: Path):
    talk.type("/system remember me\r")
    talk.see("system: remember me")
    history = store_home / "history"
    assert "+/system remember me" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o077 == 0


def test_control_characters_of_a_model_do_not_reach_the_terminal(environment, tmp_path):
    """Of an answer that holds them, at a terminal that is a real one."""
    code = (
        "import puna.cli.answer as a, sys\n"
        "from puna.engine.request import Completion, Event, Usage\n"
        "class S:\n"
        "    def __iter__(self): return iter([Event(text='a\\x1b[2Jb\\x9b'), Event(text='c')])\n"
        "a._stream_text(S())\n"
    )
    child = pexpect.spawn(sys.executable, ["-c", code], env=environment, encoding="utf-8", timeout=60)
    child.expect(pexpect.EOF)
    assert child.before == "a\u241b[2Jb\ufffdc\r\n"
    child.close()


def test_keys_during_an_answer_are_not_shown_and_not_lost(environment):
    code = (
        "import os\n"
        "from puna.cli.keyboard import _no_echo\n"
        "with _no_echo():\n"
        "    print('ready', flush=True)\n"
        "    typed = b''\n"
        "    while not typed.endswith(b'\\r'): typed += os.read(0, 10)\n"
        "    print(typed)\n"
    )
    child = pexpect.spawn(sys.executable, ["-c", code], env=environment, encoding="utf-8", timeout=60)
    child.expect("ready\r\n")
    child.send("next\r")
    child.expect(pexpect.EOF)
    assert child.before == "b'next\\r'\r\n"
    child.close()
