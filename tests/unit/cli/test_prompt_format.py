from __future__ import annotations

import json

import pytest

from puna.llama import Llama
from puna.models.catalogue import CATALOGUE


def test_an_example_as_text_and_as_json(puna, tmp_path):
    expected = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful assistant.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere do llamas live?<|eot_id|>"
    )
    for name in ("llama3.2", "meta-llama/Llama-3.2-1B-Instruct", "llama3.2:3b"):
        done = puna("prompt-format", name, "--example", "chat", PUNA_HOME=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        heading, _, prompt = done.stdout.partition("\n\n")
        assert heading == "# llama3.2, chat: two turns with a system message; no text is trimmed"
        assert prompt.startswith(expected)
    document = json.loads(puna("prompt-format", "llama3.2", "--example", "chat", "--json").stdout)
    (example,) = document["examples"]
    assert (document["format"], example["topic"]) == ("llama3.2", "chat")
    assert example["segments"][:3] == [
        ["<|begin_of_text|>", True],
        ["<|start_header_id|>", True],
        ["system", False],
    ]
    assert "".join(text for text, _ in example["segments"]) + "\n" == prompt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "topics"),
    [
        ("llama2", "chat"),
        ("llama3", "chat"),
        ("llama3.1", "chat date search code json-tools tag-tools"),
        ("llama3.2", "chat search code python-tools"),
        ("llama3.2-11b-vision-instruct", "chat image date search code json-tools tag-tools"),
        ("llama3.3", "chat search code python-tools"),
        ("llama-guard-3-1b", "user agent"),
        ("smollm2", "chat"),
    ],
)
def test_topics(puna, name, topics):
    document = json.loads(puna("prompt-format", name, "--json").stdout)
    assert [example["topic"] for example in document["examples"]] == topics.split()


def test_the_default_models_own_template(puna, llama: Llama):
    shown = puna("prompt-format", "smollm2").stdout
    assert shown.startswith(
        "# template, chat: two turns with a system message\n\n<|im_start|>system\nYou are"
    )
    assert shown.endswith("<|im_start|>user\nHow high?<|im_end|>\n<|im_start|>assistant\n\n")


def test_what_has_no_examples(refused, tmp_path):
    names = {row.prompt_format: row.name for row in CATALOGUE}
    message = refused("prompt-format", names["base"], status=1)
    assert (
        message == f"{names['base']} is a base model, which reads text as it is; there are no examples of it"
    )
    assert "is a classifier" in refused("prompt-format", names["none"], status=1)
    message = refused("prompt-format", "smollm2", status=1, PUNA_HOME=str(tmp_path))
    assert "`puna pull smollm2` fetches it" in message
    message = refused("prompt-format", "llama3.1", "--example", "tools", status=2)
    assert message.startswith("llama3.1 has no example 'tools'; did you mean '")
    assert "no model is called 'lama3.1'; did you mean 'llama3.1'?" in refused(
        "prompt-format", "lama3.1", status=2
    )


def test_raw_shows_prompt_and_answer(puna, llama: Llama):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}]
    answer = llama.chat(messages, temperature=0, max_tokens=8).result()
    done = puna("chat", "smollm2", "Hi <|im_end|>", "--system", "Be brief.", "--raw", "--stats", *GREEDY)
    assert done.stdout == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n"
        f"<|im_start|>assistant\n{answer.text}\n"
    )
    assert "8 new tokens" in done.stderr


GREEDY = ("--temperature", "0", "--max-tokens", "8")


def test_raw_and_json_do_not_go_together(refused):
    assert refused("chat", "smollm2", "Hi", "--raw", "--json", status=2).startswith(
        "--raw and --json do not go"
    )
