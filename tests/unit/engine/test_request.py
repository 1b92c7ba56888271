"""Settings of a request: each limit, by value, in the message."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from puna.engine.request import SamplingOptions, SamplingParams
from puna.errors import ConfigError

BAD = [
    ("max_tokens", 0, "whole number from 1 to 2147483647, got 0"),
    ("max_tokens", 2**31, "got 2147483648"),
    ("max_tokens", True, "got True"),
    ("temperature", -0.1, "number from 0 to 2, got -0.1"),
    ("temperature", float("nan"), "got nan"),
    ("temperature", "hot", "got 'hot'"),
    ("top_k", -1, "whole number from 0 to 2147483647, got -1"),
    ("top_k", 1.5, "got 1.5"),
    ("top_p", 1.1, "number from 0 to 1, got 1.1"),
    ("min_p", -1, "number from 0 to 1, got -1"),
    ("repetition_penalty", 0, "number from 0.01 to 100, got 0"),
    ("frequency_penalty", 3, "number from -2 to 2, got 3"),
    ("presence_penalty", -3, "number from -2 to 2, got -3"),
    ("seed", -1, "whole number from 0 to 18446744073709551615, got -1"),
    ("seed", 2**64, "got 18446744073709551616"),
    ("stop", [""], "none of them empty"),
    ("stop", ["x"] * 17, "at most 16"),
    ("stop", 5, "got 5"),
    ("stop", [5], r"got \[5\]"),
    ("stop_ids", [-5], "got -5"),
    ("logit_bias", {1: 101}, r"`logit_bias\[1\]` must be a number from -100 to 100, got 101"),
    ("logit_bias", {-1: 0}, "got -1"),
    ("logprobs", 21, "whole number from 0 to 20, got 21"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_out_of_range_values_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SamplingParams(**{name: value})
    assert name in str(caught.value)


def test_the_keywords_of_calls_are_those_of_the_settings() -> None:
    assert list(SamplingOptions.__annotations__) == [f.name for f in dataclasses.fields(SamplingParams)]


def test_stop_takes_one_text_or_several() -> None:
    assert SamplingParams(stop="x").stop_texts == ("x",)
    assert SamplingParams(stop=["x", "y"]).stop_texts == ("x", "y")
