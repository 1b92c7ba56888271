from __future__ import annotations

import json
import signal
import subprocess
import sys

from puna.llama import Llama

GREEDY = ("--temperature", "0", "--max-tokens", "8")


def test_answers_a_prompt_with_the_text_and_nothing_else(puna, llama: Llama):
    expected = llama.chat([{"role": "user", "content": "Why do llamas hum?"}], temperature=0, max_tokens=8)
    done = puna("chat", "Why do llamas hum?", *GREEDY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected.result().text + "\n"


def test_json_has_the_whole_answer_and_the_pipe_comes_behind_the_prompt(puna, llama: Llama):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say it again:\n\nllamas hum\n"},
    ]
    expected = llama.chat(messages, temperature=0, max_tokens=8, seed=5).result()
    done = puna(
        *("chat", "smollm2", "Say it again:", *GREEDY, "--seed", "5"),
        *("--system", "Be brief.", "--json", "--stats"),
        piped="llamas hum\n\n",
    )
    document = json.loads(done.stdout)
    assert document["model"] == "smollm2-135m-instruct"
    assert document["text"] == expected.text
    assert document["tokens"] == list(expected.tokens)
    assert (document["finish_reason"], document["seed"]) == (expected.finish_reason, 5)
    assert document["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert f"{expected.usage.prompt_tokens} prompt tokens (0 cached), 8 new tokens at " in done.stderr
    assert done.stderr.endswith("ended by length, seed 5\n")


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(refused):
    message = refused("chat", "smollm2", "a " * 100, "--context", "64", status=1)
    assert "at most 63 fit the context of 64" in message


def test_a_word_that_is_no_model_is_an_error_and_not_a_prompt(refused):
    message = refused("chat", "smollm", status=2)
    assert message.startswith("no model is called 'smollm'; did you mean 'smollm2'?")
    assert message.endswith("If it is a prompt, write the model before it")


def test_no_prompt_and_no_terminal(refused):
    needed = "there is no prompt; give one as an argument or through a pipe"
    assert refused("chat", status=2) == needed
    assert refused("chat", "smollm2", status=2, piped=" \n") == needed
    assert refused("complete", "smollm2", status=2) == needed


def test_options_are_checked_before_the_model(refused, tmp_path):
    for option, value, needed in (
        ("--temperature", "7", "`temperature` must be a number from 0 to 2, got 7.0"),
        ("--top-k", "-1", "`top_k` must be a whole number from 0 to 2147483647, got -1"),
        ("--cache", "int4", "cache 'int4' is unknown; did you mean 'int8'? known: auto, f16, f32, int8"),
        ("--max-tokens", "0", "`max_tokens` must be a whole number from 1 to 2147483647, got 0"),
    ):
        assert refused("chat", "a b", option, value, status=2, PUNA_HOME=str(tmp_path)) == needed


def test_a_file_that_is_no_model(refused, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary,")
    assert f"{path} is not a model file, it begins with b'Dear dia'" in refused("chat", path, "hi", status=1)
    assert "gone.gguf" in refused("chat", tmp_path / "gone.gguf", "hi", status=2)


def test_ctrl_c_ends_with_130_and_a_line_end(environment):
    command = [sys.executable, "-m", "puna", "chat", "Count from 1 to 2000.", "--temperature", "0"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    assert (first + out).endswith(b"\n")


def test_a_closed_pipe_is_not_told(environment):
    command = [sys.executable, "-m", "puna", "chat", "Count from 1 to 2000.", "--temperature", "0"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


def test_an_answer_that_was_cut_unasked_says_so(puna):
    done = puna("complete", "1, 2, 3, 4,", "--temperature", "0", "--context", "40")
    assert done.returncode == 0
    assert done.stderr.startswith("cut after ")
    assert "--max-tokens and --context set how many there may be" in done.stderr
