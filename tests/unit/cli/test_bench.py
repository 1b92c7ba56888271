from __future__ import annotations

import json

from puna import _native


def test_json(puna):
    done = puna("bench", "--json", "--repeat", 2, "--prompt-tokens", 20, "--new-tokens", 3, "--threads", 1)
    assert done.returncode == 0
    assert done.stderr.startswith("measuring smollm2-135m-instruct in a process of its own: 1 + 2 runs")
    report = json.loads(done.stdout)
    assert set(report) == {
        "settings", "speed", "file_bytes", "peak_rss_bytes", "model", "formats", "isa", "threads", "machine"
    }  # fmt: skip
    assert (report["model"], report["threads"]) == ("smollm2-135m-instruct", 1)
    assert report["isa"] in dict(_native.isas())
    assert report["settings"]["prompt_tokens"] == 20
    for spread in report["speed"].values():
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    # The mapped weights are 144 MB, and nothing the process does needs a gigabyte.
    assert 144e6 < report["peak_rss_bytes"] < 1e9
    assert report["file_bytes"] > 143_844_096


def test_bad_numbers(refused):
    assert refused("bench", "--repeat", 0, status=2) == "`repeats` must be at least 1, got 0"
