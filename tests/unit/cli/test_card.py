from __future__ import annotations

import json

from tests.tiny import save_tiny


def test_table_and_json(puna, tmp_path):
    save_tiny(tmp_path / "a")
    save_tiny(tmp_path / "b", seed=1)
    (tmp_path / "text.txt").write_text("Llamas hum. " * 20)
    question = {"question": "Who hums?", "choices": [" a llama", " a stone"], "answer": 0}
    (tmp_path / "hums.jsonl").write_text(json.dumps(question))
    arguments = ["card", tmp_path / "a", tmp_path / "b", "--rounds", "1", "--new-tokens", "8"]
    measured = ["--text", tmp_path / "text.txt", "--questions", tmp_path / "hums.jsonl"]
    done = puna(*arguments, *measured, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    a, b = report["rows"]
    assert (a["model"], b["model"]) == ("a", "b")
    assert a["inference"]["file_bytes"] == sum(f.stat().st_size for f in (tmp_path / "a").iterdir())
    assert b["inference"]["decode_tokens_per_s"]["median"] > 0
    assert a["quality"]["agreement"]["mean_kl"] == 0
    assert b["quality"]["agreement"]["mean_kl"] > 0
    assert report["tokens"] == 239
    assert a["quality"]["benchmarks"]["hums"] in (0, 1)
    assert a["published"] is None
    done = puna(*arguments, *measured)
    assert done.returncode == 0, done.stderr
    assert f"{b['quality']['perplexity']:.4f}" in done.stdout
    head = next(line for line in done.stdout.splitlines() if "perplexity" in line)
    assert head.split()[-1] == "hums"
    assert "published" not in done.stdout


def test_all_that_is_published_is_printed(puna, tmp_path):
    """Also of benchmarks that nobody asked for."""
    for name in ("llama3.2-1b-instruct", "llama3.2-1b-instruct-spinquant"):
        save_tiny(tmp_path / name)
    (tmp_path / "text.txt").write_text("Llamas hum. " * 20)
    models = [tmp_path / "llama3.2-1b-instruct", tmp_path / "llama3.2-1b-instruct-spinquant"]
    done = puna("card", *models, "--rounds", "1", "--new-tokens", "8", "--text", tmp_path / "text.txt")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["published,", "percent", "llama3.2-1b-instruct", "llama3.2-1b-instruct-spinquant"] in lines
    for scores in (["mmlu", "49.3", "47.3"], ["mmlu_th", "34.7", "32.4"], ["nih_multi_needle", "75"]):
        assert scores in lines


def test_what_cannot_be_read_is_told_before_the_work(refused, tmp_path):
    message = refused("card", tmp_path, "--questions", tmp_path / "none", status=2)
    assert "cannot be read as text" in message
