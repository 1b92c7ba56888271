"""Table, chart and JSON of results that were made up."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks.chart import svg
from benchmarks.measures import MEASURES
from benchmarks.results import Report, Row, read_report, write_report
from benchmarks.table import best_peer, labels, markdown

from puna.evaluate.chart import number

MACHINE = {
    "cpu": "Some <CPU>", "usable_cpus": 2, "memory_bytes": 3 << 30, "platform": "Linux-9", "isa": "avx2",
}  # fmt: skip
FACTS = {"weight_bytes": 999e6, "cache_bytes": 1e6 / 64}  # 1,000 MB after 64 tokens


def row(measure: str, engine: str, format: str, *values: float, **other: object) -> Row:
    return Row(
        measure=measure, engine=engine, format=format, values=list(values), commit="abc", load_average=0.2,
        **other,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def report() -> Report:
    return Report(
        shape="llama3.2-1b",
        seed=7,
        threads=2,
        machine=MACHINE,
        versions={"puna": "0.1", "llama.cpp": "9"},
        missing={"openvino": "openvino-genai is not installed"},
        files={"puna int4": {"bytes": 10, "sha256": "00"}},
        stream_read={"decode-64": [20e9, 40e9, 25e9]},
        rows=[
            row("decode-64", "llama.cpp", "Q4_0", 8.0, 9.0, 10.0),
            row("decode-64", "puna", "int4", 18.0, 20.0, 19.0, facts=FACTS),
            row("decode-64", "llama.cpp flash", "Q4_0", 9.5, 9.5, 9.5),
            row("decode-64", "puna", "bf16", 5.0, 4.0, 6.0),
            row("cold-start", "puna", "int4", 0.5),
            row("cold-start", "llama.cpp", "Q4_0", 1.0),
            row("cold-start", "llama.cpp flash", "Q4_0", 2.0),
            row("requests-8", "puna", "int4", 1200.0),
            row("requests-8", "llama.cpp", "Q4_0", problem="unsupported, one request at a time"),
            row("requests-8", "llama.cpp flash", "Q4_0", problem="it broke (status 1)"),
        ],
    )


def cells(page: str, title: str) -> list[str]:
    """The first line of a table that begins with a title."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_hold_medians_spread_and_the_ratio_to_the_best_peer(report: Report):
    page = markdown(report)
    assert cells(page, "answer after 64") == [
        "answer after 64 tokens, tok/s", "19.0 (18.0-20.0)", "9.00 (8.00-10.0)", "9.50", "2.00x",
    ]  # fmt: skip
    # Where less is better, so is the best peer's number the lowest.
    assert cells(page, "start to first") == ["start to first token, s", "0.50", "1.00", "2.00", "0.50x"]


def test_what_did_not_run_is_told(report: Report):
    page = markdown(report)
    assert cells(page, "8 requests")[1:] == ["1,200", "no", "failed", ""]
    assert "- openvino: not run, openvino-genai is not installed." in page
    assert "- llama.cpp flash Q4_0, requests-8: it broke (status 1)." in page
    assert "- llama.cpp Q4_0, requests-8: unsupported, one request at a time." in page


def test_int4_over_bf16(report: Report):
    ratio = markdown(report).partition("## Puna's int4 over its bf16")[2]
    assert cells(ratio, "answer after 64") == ["answer after 64 tokens", "3.80x"]


def test_roofline_goes_round_by_round(report: Report):
    """Shares of 18, 20 and 19 tokens of 1 GB at 20, 40 and 25 GB/s; not of medians."""
    assert cells(markdown(report), "puna int4") == [
        "puna int4", "answer after 64 tokens", "1,000", "25.0 (20.0-40.0)", "25.0", "76% (50%-90%)",
    ]  # fmt: skip


def test_best_peer_is_never_ours(report: Report):
    columns = labels(report, "4-bit")
    assert columns[0] == "puna int4"
    best = best_peer(report, MEASURES["decode-64"], columns)
    assert best is not None
    assert best.label == "llama.cpp flash Q4_0"
    assert best_peer(report, MEASURES["requests-8"], columns) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.512, "0.51"), (7.305, "7.30"), (30.44, "30.4"), (458.2, "458"), (1119.4, "1,119")]
)
def test_number(value: float, text: str):
    assert number(value) == text


def test_chart_has_a_bar_for_every_result_to_scale(report: Report):
    root = ElementTree.fromstring(svg(report))
    space = "{http://www.w3.org/2000/svg}"
    bars = [bar for bar in root.findall(f"{space}rect") if bar.get("fill") != "#ffffff"]
    assert len(bars) == sum(1 for row in report.rows if row.values)
    ours, theirs, flash = (float(bar.get("width", 0)) for bar in bars[:3])
    assert ours / theirs == pytest.approx(19 / 9, rel=1e-2)
    assert ours / flash == pytest.approx(19 / 9.5, rel=1e-2)
    texts = [text.text for text in root.findall(f"{space}text")]
    assert texts[0] == "llama3.2-1b, Some <CPU>, 2 threads (avx2)"
    assert "answer after 64 tokens, tok/s (more is better)" in texts
    assert "start to first token, s (less is better)" in texts
    bottom = max(float(bar.get("y", 0)) + float(bar.get("height", 0)) for bar in bars)
    assert bottom < float(root.get("height", 0))


def test_results_come_back_from_their_file(report: Report, tmp_path: Path):
    path = tmp_path / "results.json"
    write_report(report, path)
    assert read_report(path) == report
    raw = json.loads(path.read_text())
    assert set(raw) == {
        "version", "shape", "seed", "threads", "machine", "versions", "missing", "files", "stream_read",
        "rows",
    }  # fmt: skip
    assert raw["rows"][0] == {
        "measure": "decode-64", "engine": "llama.cpp", "format": "Q4_0", "values": [8.0, 9.0, 10.0],
        "problem": None, "facts": {}, "commit": "abc", "at": "", "load_average": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no report"), ("[]", "is no report"), ("{}", "is no report"),
        ('{"version": 1, "rows": []}', "is no report"), ('{"version": 0}', "another version"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_report(path)


def test_new_rows_take_the_place_of_old_ones(report: Report):
    n = len(report.rows)
    report.put([row("decode-64", "puna", "int4", 1.0), row("prefill-64", "puna", "int4", 2.0)])
    assert len(report.rows) == n + 1
    again = report.row("decode-64", "puna int4")
    assert again is not None
    assert again.values == [1.0]


def test_only_the_same_place_shares_a_table(report: Report):
    def other(**changes: object) -> Report:
        fields: dict[str, object] = {"shape": "llama3.2-1b", "seed": 7, "threads": 2, "machine": MACHINE}
        return Report(**fields | changes)  # type: ignore[arg-type]

    assert report.is_same_place(other())
    assert report.is_same_place(other(machine=MACHINE | {"load_average": 3}))
    for changes in ({"seed": 8}, {"threads": 1}, {"shape": "x"}, {"machine": MACHINE | {"cpu": "other"}}):
        assert not report.is_same_place(other(**changes))
