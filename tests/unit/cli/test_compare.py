from __future__ import annotations

import json
from xml.etree import ElementTree

from tests.tiny import save_tiny


def test_table_and_json(puna, tmp_path):
    save_tiny(tmp_path / "a")
    save_tiny(tmp_path / "b", seed=1)
    (tmp_path / "text.txt").write_text("Llamas hum. " * 20)
    arguments = (
        "compare",
        tmp_path / "a",
        tmp_path / "b",
        "--text",
        tmp_path / "text.txt",
        "--window",
        "128",
    )
    done = puna(*arguments, "--json", "--format", "int4")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"agreement", "reference", "other"}
    assert report["agreement"]["tokens"] == 240 - 2
    assert report["agreement"]["mean_kl"] > 0
    assert report["other"]["formats"] == {"int8_channel": 2, "int4_group32": 14}
    assert report["reference"]["formats"] == {"f32": 16}
    done = puna(*arguments, "--chart", tmp_path / "chart.svg")
    assert done.returncode == 0, done.stderr
    assert "perplexity over 238 tokens" in done.stdout
    assert f"{report['agreement']['reference_perplexity']:.4f}" in done.stdout
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [texts.count(name) for name in ("a", "b")] == [5, 5]
    assert "perplexity over 238 tokens (less is better)" in texts


def test_a_chart_that_cannot_be_written_loses_no_figures(puna, tmp_path):
    save_tiny(tmp_path / "a")
    (tmp_path / "text.txt").write_text("Llamas hum. " * 20)
    chart = ("--chart", tmp_path / "none" / "chart.svg")
    done = puna("compare", tmp_path / "a", tmp_path / "a", "--text", tmp_path / "text.txt", *chart)
    assert done.returncode == 2
    assert "chart.svg cannot be written" in done.stderr
    assert "perplexity over 239 tokens" in done.stdout


def test_a_text_that_is_not_there(refused, tmp_path):
    message = refused("compare", tmp_path, tmp_path, "--text", tmp_path / "none", status=2)
    assert "cannot be read as text" in message
