from __future__ import annotations

import json

import pytest

from puna.llama import Llama


def test_goes_on_with_a_text_and_tells_logprobs_on_stderr(puna, llama: Llama):
    expected = llama.generate("Once upon a", temperature=0, max_tokens=3, logprobs=1)
    done = puna("complete", "--temperature", 0, "--max-tokens", 3, "--logprobs", 1, piped="Once upon a\n")
    assert done.stdout == expected.text + "\n"
    rows = [line.split() for line in done.stderr.splitlines()]
    assert [float(row[0]) for row in rows] == [round(entry.logprob, 3) for entry in expected.logprobs]
    # Greedy: the token is its own likeliest alternative.
    assert [row[: len(row) // 2] for row in rows] == [row[len(row) // 2 :] for row in rows]


def test_json_has_the_logprobs_with_texts(puna, llama: Llama):
    expected = llama.generate("Once upon a", temperature=0, max_tokens=2, logprobs=2)
    done = puna("complete", "Once upon a", "--temperature", 0, "--max-tokens", 2, "--logprobs", 2, "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert [entry["token"] for entry in document["logprobs"]] == list(expected.tokens)
    assert "".join(entry["text"] for entry in document["logprobs"]) == expected.text
    for entry, other in zip(document["logprobs"], expected.logprobs, strict=True):
        assert entry["logprob"] == pytest.approx(other.logprob, abs=0)
        assert [(top["token"], top["logprob"]) for top in entry["top"]] == list(other.top)


def test_stop_texts_end_the_answer(puna, llama: Llama):
    whole = llama.generate("Once upon a time", temperature=0, max_tokens=12).text
    word = whole.split()[3]
    done = puna("complete", "Once upon a time", "--temperature", 0, "--max-tokens", 12, "--stop", word)
    assert done.stdout == whole.partition(word)[0] + "\n"
