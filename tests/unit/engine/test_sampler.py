"""The native sampler against the same rules in float64, written by sorting the whole vocabulary."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from puna import _native
from puna.errors import NativeError

PLAIN: dict[str, Any] = {
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": 0,
    "top_logprobs": -1,
    "logit_bias": [],
}
MASK = 2**64 - 1


def mix(x: int) -> int:
    """SplitMix64."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class Reference:
    """Draws as `SamplingParams` says, one token after the other."""

    def __init__(self, prompt: list[int], **settings: Any) -> None:
        # The native sampler takes its settings as float32.
        as_taken = {name: float(np.float32(v)) if isinstance(v, float) else v for name, v in settings.items()}
        self.settings = {**PLAIN, **as_taken}
        self.prompt = set(prompt)
        self.output: Counter[int] = Counter()

    def pick(self, logits: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None) -> int:
        s, x = self.settings, logits.astype(np.float64)
        for token, bias in s["logit_bias"]:
            x[token] += bias
        for token in self.prompt | set(self.output):
            x[token] *= 1 / s["repetition_penalty"] if x[token] > 0 else s["repetition_penalty"]
        for token, uses in self.output.items():
            x[token] -= s["frequency_penalty"] * uses + s["presence_penalty"]
        if allowed is not None:
            x[~allowed] = -np.inf
        token = int(x.argmax()) if s["temperature"] == 0 else self._draw(x)
        self.output[token] += 1
        return token

    def _draw(self, x: NDArray[np.float64]) -> int:
        s = self.settings
        weights = np.exp((x - x.max()) / s["temperature"])
        u = (mix(mix(s["seed"]) ^ self.output.total()) >> 11) / 2**53
        if s["top_k"] == 0 and s["top_p"] == 1 and s["min_p"] == 0:
            return int((weights.cumsum() > u * weights.sum()).argmax())
        order = np.argsort(-weights, kind="stable")
        if s["top_k"]:
            order = order[: s["top_k"]]
        sums = weights[order].cumsum()
        if s["top_p"] < 1:
            order = order[: 1 + int((sums >= s["top_p"] * sums[-1]).argmax())]
        order = order[weights[order] >= s["min_p"]]
        sums = weights[order].cumsum()
        return int(order[(sums > u * sums[-1]).argmax()])


def logits_of(kind: str, n: int) -> NDArray[np.float32]:
    draw = np.random.default_rng(7)
    made = {
        "flat": draw.normal(0, 1, n),
        "peaked": draw.gumbel(0, 2.5, n),
        # Many equal weights, also around every cut.
        "tied": draw.integers(-8, 4, n) / 2,
        "equal": np.zeros(n),
        # All but one weight round to nothing.
        "certain": np.where(np.arange(n) == n // 3, 200.0, draw.normal(0, 1, n)),
    }[kind]
    return made.astype(np.float32)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6, "top_p": 0.9},
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.5, "top_k": 40},
    {"temperature": 1.5, "top_k": 10**9, "min_p": 0.01},
    {"temperature": 0.9, "top_k": 50, "top_p": 0.5},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.0, "top_p": 0.999, "min_p": 1.0},
    {"temperature": 0.7, "top_p": 0.0},
    {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.3},
    {"temperature": 0.8, "top_k": 20, "frequency_penalty": 0.7, "presence_penalty": -0.4},
    {"frequency_penalty": 1.0, "repetition_penalty": 0.8, "logit_bias": [(3, 4.5), (5, -100.0)]},
]


@pytest.mark.parametrize("kind", ["flat", "peaked", "tied", "equal", "certain"])
@pytest.mark.parametrize("n", [1, 7, 1000, 128_256])
def test_tokens_are_those_of_the_rules_in_float64(kind: str, n: int) -> None:
    logits, prompt = logits_of(kind, n), [0, n // 2, n - 1]
    for settings in SETTINGS:
        biases = [(token, bias) for token, bias in settings.get("logit_bias", []) if token < n]
        settings = {**settings, "seed": n, "logit_bias": biases}
        sampler, reference = _native.Sampler(**{**PLAIN, **settings}), Reference(prompt, **settings)
        sampler.observe(np.array(prompt, np.int32))
        n_picks = 3 if n > 1000 else 25
        expected = [reference.pick(logits) for _ in range(n_picks)]
        assert [sampler.pick(logits).token for _ in range(n_picks)] == expected, settings


@pytest.mark.parametrize("kind", ["flat", "peaked", "tied", "equal", "certain"])
@pytest.mark.parametrize("n", [1, 21, 128_256])
def test_the_most_likely_tokens_are_those_of_a_sort(kind: str, n: int) -> None:
    logits = logits_of(kind, n)
    sample = _native.Sampler(**{**PLAIN, "top_logprobs": 20, "presence_penalty": 1.0}).pick(logits)
    x = logits.astype(np.float64)
    logprobs = x - x.max() - np.log(np.exp(x - x.max()).sum())
    # Logits so far below the first that their weights are zero are one tie.
    order = np.argsort(-np.where(x - x.max() > -87.3, x, -np.inf), kind="stable")[:20]
    assert [token for token, _ in sample.top] == order.tolist()
    assert [value for _, value in sample.top] == pytest.approx(logprobs[order].tolist(), abs=1e-4)
    assert sample.logprob == pytest.approx(logprobs[sample.token], abs=1e-4)


@pytest.mark.parametrize("temperature", [1e-45, 1e-30])
def test_a_temperature_next_to_zero_takes_the_most_likely_token(temperature: float) -> None:
    logits = logits_of("tied", 500)
    for limits in ({}, {"top_p": 0.9}, {"top_k": 5, "min_p": 0.1}):
        sampler = _native.Sampler(**{**PLAIN, "temperature": temperature, **limits})
        assert logits[sampler.pick(logits).token] == logits.max()


def test_numbers_that_are_not_finite_show() -> None:
    for bad in (np.nan, np.inf):
        logits = logits_of("flat", 100)
        logits[17] = bad
        assert not _native.Sampler(**PLAIN).pick(logits).is_finite
    assert not _native.Sampler(**PLAIN).pick(np.full(100, -np.inf, np.float32)).is_finite


def as_words(allowed: NDArray[np.bool_]) -> NDArray[np.uint32]:
    padded = np.zeros(-(-len(allowed) // 32) * 32, bool)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view(np.uint32)


@pytest.mark.parametrize("kind", ["flat", "peaked", "tied", "equal", "certain"])
@pytest.mark.parametrize("n", [1, 7, 1000, 128_256])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_what_is_not_allowed_is_as_if_it_were_not_there(kind: str, n: int, share: float) -> None:
    logits = logits_of(kind, n)
    allowed = np.random.default_rng(n).random(n) < share
    allowed[n // 2] = True
    for settings in SETTINGS:
        biases = [(token, bias) for token, bias in settings.get("logit_bias", []) if token < n]
        settings = {**settings, "seed": n, "logit_bias": biases}
        sampler, reference = _native.Sampler(**{**PLAIN, **settings}), Reference([0], **settings)
        sampler.observe(np.array([0], np.int32))
        n_picks = 3 if n > 1000 else 10
        expected = [reference.pick(logits, allowed) for _ in range(n_picks)]
        assert [sampler.pick(logits, as_words(allowed)).token for _ in range(n_picks)] == expected, settings
        assert all(allowed[token] for token in expected)


@pytest.mark.parametrize("n", [21, 1000, 128_256])
def test_logprobs_are_those_over_what_is_allowed(n: int) -> None:
    logits = logits_of("flat", n)
    allowed = np.zeros(n, bool)
    allowed[[1, 5, n // 2, n - 1]] = True
    sample = _native.Sampler(**{**PLAIN, "top_logprobs": 20}).pick(logits, as_words(allowed))
    x = logits.astype(np.float64)[allowed]
    expected = np.sort(x - x.max() - np.log(np.exp(x - x.max()).sum()))[::-1]
    assert [value for _, value in sample.top] == pytest.approx(expected.tolist(), abs=1e-5)
    assert {token for token, _ in sample.top} == set(np.flatnonzero(allowed).tolist())
    assert sample.logprob == pytest.approx(expected[0], abs=1e-5)


def test_a_mask_of_all_tokens_changes_nothing_and_one_of_none_shows() -> None:
    logits = logits_of("flat", 1000)
    settings = {**PLAIN, "temperature": 1.0, "top_p": 0.9, "top_logprobs": 5}
    plain, masked = _native.Sampler(**settings), _native.Sampler(**settings)
    for _ in range(20):
        one, other = plain.pick(logits), masked.pick(logits, as_words(np.ones(1000, bool)))
        assert (one.token, one.logprob, one.top) == (other.token, other.logprob, other.top)
    assert not plain.pick(logits, as_words(np.zeros(1000, bool))).is_finite
    with pytest.raises(NativeError, match="a bit for each of 1000 tokens, got 992"):
        plain.pick(logits, np.zeros(31, np.uint32))
