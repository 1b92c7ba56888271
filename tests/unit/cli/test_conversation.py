from __future__ import annotations

import json

import pytest

from puna.cli.conversation import SETTINGS, Conversation
from puna.engine.request import SamplingParams
from puna.errors import CheckpointError, ConfigError, PromptFormatError, StoreError
from puna.prompt.messages import Assistant, System, Tool, User


def test_a_saved_conversation_comes_back(tmp_path):
    path = tmp_path / "talk.json"
    turns = [User("ñ\n"), Assistant("a\x1b"), Tool("3", "sum"), Assistant("3")]
    said = Conversation("Be brief.", turns, SamplingParams(seed=7, stop=("END",), max_tokens=5))
    said.save(path)
    said.save(path)  # its own file may be written again
    assert Conversation.load(path) == said
    assert [file.name for file in tmp_path.iterdir()] == ["talk.json"]
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert raw["messages"][0] == {"role": "system", "content": "Be brief."}
    assert raw["messages"][3] == {"role": "tool", "content": "3", "name": "sum"}
    assert (raw["settings"]["seed"], set(raw["settings"])) == (7, set(SETTINGS))


def test_save_leaves_other_files_alone(tmp_path):
    path = tmp_path / "diary.json"
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"diary\.json exists and is not a saved conversation"):
        Conversation().save(path)
    assert path.read_text() == "{}"
    with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
        Conversation().save(tmp_path / "no" / "talk.json")
    with pytest.raises(StoreError, match=r"cannot be written: .*surrogates not allowed"):
        Conversation(turns=[User("\ud800")]).save(tmp_path / "talk.json")
    assert [file.name for file in tmp_path.iterdir()] == ["diary.json"]


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ("[]", CheckpointError, "needs a JSON object, got list"),
        ("{", CheckpointError, "not valid JSON"),
        ('{"messages": []}', ConfigError, r"got \['messages'\]"),
        ('{"messages": [], "settings": []}', ConfigError, "`settings`, an object"),
        ('{"messages": 3, "settings": {}}', PromptFormatError, "must be a list of messages, got int"),
        ('{"messages": [{"role": "usr", "content": ""}], "settings": {}}', PromptFormatError, "'usr'"),
        ('{"messages": [], "settings": {"top_q": 1}}', ConfigError, "did you mean 'top_[kp]'"),
        ('{"messages": [], "settings": {"top_p": 2}}', ConfigError, "a number from 0 to 1, got 2"),
        ('{"messages": [], "settings": {"stop": 5}}', ConfigError, "a text or a list of texts, got 5"),
    ],
)  # fmt: skip
def test_load_checks_everything(tmp_path, document, error, message):
    path = tmp_path / "talk.json"
    path.write_text(document)
    with pytest.raises(error, match=message):
        Conversation.load(path)


def test_settings_are_typed_and_checked():
    said = Conversation()
    for name, text, value in (
        ("temperature", "0", 0),
        ("top_k", "40", 40),
        ("top_p", "0.5", 0.5),
        ("seed", "9", 9),
        ("max_tokens", "none", None),
        ("stop", "12", "12"),
        ("stop", "none", ()),
    ):
        said.set(name, text)
        assert getattr(said.settings, name) == value
    with pytest.raises(ConfigError, match=r"`top_k` must be a whole number .* got 4\.5"):
        said.set("top_k", "4.5")
    with pytest.raises(ConfigError, match="`temperature` must be a number from 0 to 2, got 'hot'"):
        said.set("temperature", "hot")
    with pytest.raises(ConfigError, match="no setting is called 'logprobs'"):
        said.set("logprobs", "1")
    assert said.options()["top_k"] == 40


def test_the_last_thing_the_user_said():
    turns = [User("a"), Assistant("b"), User("c"), Assistant("d")]
    assert Conversation(turns=turns).up_to_last_user() == turns[:3]
    with pytest.raises(ConfigError, match="say something first"):
        Conversation().up_to_last_user()


def test_the_system_message_goes_first():
    assert Conversation("s").messages([User("a")]) == [System("s"), User("a")]
    assert Conversation().messages([User("a")]) == [User("a")]
