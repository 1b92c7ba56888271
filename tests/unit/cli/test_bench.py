from __future__ import annotations

import json

import pytest

from puna import _native


def test_json(puna):
    done = puna("bench", "--json", "--repeat", 2, "--prompt-tokens", 20, "--new-tokens", 3, "--threads", 1,
                "--cache", "int8")  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("measuring smollm2-135m-instruct in a process of its own: 1 + 2 runs")
    report = json.loads(done.stdout)
    assert set(report) == {
        "settings", "speed", "cold_start_s", "roofline", "file_bytes", "peak_rss_bytes", "model", "formats",
        "cache", "isa", "threads", "machine",
    }  # fmt: skip
    assert (report["model"], report["threads"]) == ("smollm2-135m-instruct", 1)
    assert report["cache"] == "int8"
    assert report["isa"] in dict(_native.isas())
    assert report["settings"]["prompt_tokens"] == 20
    for spread in report["speed"].values():
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    first_token = report["speed"]["time_to_first_token_s"]["low"]
    assert report["cold_start_s"] > first_token
    # 134,515,008 weights, of which 49,152 x 576 are embedding and head, and no product of a prompt's token.
    prefill, decode = report["roofline"]["prefill"], report["roofline"]["decode"]
    assert prefill["per_token"] == 134_515_008 - 61 * 576 - 49_152 * 576
    # Groups of 32 with 8 bits take 34 bytes; keys and values of 30 layers, 3 heads, 64 numbers of 2 bytes,
    # for 20 positions and half the answer.
    assert decode["per_token"] == pytest.approx(134_515_008 * 34 / 32 + 21.5 * 30 * 2 * 3 * 64 * 2, rel=0.01)
    for limit, speed in ((decode, "decode_tokens_per_s"), (prefill, "prefill_tokens_per_s")):
        assert limit["tokens_per_s"] == pytest.approx(limit["per_s"] / limit["per_token"])
        reached = report["speed"][speed]["median"] / limit["tokens_per_s"]
        assert limit["reached"] == pytest.approx(reached)
    # The mapped weights are 144 MB, and nothing the process does needs a gigabyte.
    assert 144e6 < report["peak_rss_bytes"] < 1e9
    assert report["file_bytes"] > 143_844_096


def test_rows(puna):
    done = puna("bench", "--repeat", 1, "--prompt-tokens", 8, "--new-tokens", 2, "--format", "bf16")
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    # No limit of integer products for weights that are no integers.
    assert names == [
        "model", "machine", "decode", "speculation", "time to first token", "prefill", "cold start",
        "file size", "peak memory", "decode limit",
    ]  # fmt: skip


def test_bad_numbers(refused):
    assert refused("bench", "--repeat", 0, status=2) == "`repeats` must be at least 1, got 0"
