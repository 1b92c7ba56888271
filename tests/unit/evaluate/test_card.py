from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.errors import ConfigError
from puna.evaluate import card
from puna.evaluate.card import CardSettings, make_card, published
from puna.evaluate.machine import this_machine
from puna.evaluate.roofline import Limit, Roofline
from puna.evaluate.speed import Speed, SpeedReport, SpeedSettings, Spread


def report(settings: SpeedSettings, decode: float) -> SpeedReport:
    one = Spread.of([decode])
    speed = Speed(
        decode_tokens_per_s=one, time_to_first_token_s=one, prefill_tokens_per_s=one, tokens_per_step=one
    )
    return SpeedReport(
        settings=settings,
        speed=speed,
        cold_start_s=1.0,
        roofline=Roofline(decode=Limit.of(1.0, per_token=1.0, per_s=1.0), prefill=None),
        file_bytes=10,
        peak_rss_bytes=int(decode),
        model=settings.model,
        formats={"f32": 1},
        cache="f16",
        isa="scalar",
        threads=1,
        machine=this_machine(),
    )


def test_models_are_measured_in_turn_and_medians_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def measured(settings: SpeedSettings) -> SpeedReport:
        order.append(settings.model)
        assert settings.prompt_tokens == 64
        return report(settings, float(len(order)))

    monkeypatch.setattr(card, "measure_apart", measured)
    monkeypatch.setattr(
        card, "_quality", lambda *_: card.Quality(perplexity=None, agreement=None, benchmarks={})
    )
    made = make_card(CardSettings(models=("a", "b"), rounds=3))
    assert order == ["a", "b", "b", "a", "a", "b"]
    a, b = (row.inference for row in made.rows)
    assert a.decode_tokens_per_s == Spread(median=4, low=1, high=5)
    assert b.peak_rss_bytes == Spread(median=3, low=2, high=6)
    assert [row.published for row in made.rows] == [None, None]


@pytest.mark.parametrize(
    "name",
    [
        "Llama3.2-1B-Instruct:int4-spinquant-eo8",
        "x/Llama-3.2-1B-Instruct-SpinQuant_INT4_EO8",
        "llama3.2-1b-instruct-spinquant",
    ],
)
def test_models_of_the_card_are_known_by_any_name(name: str) -> None:
    figures = published(name)
    assert figures is not None
    assert (figures.decode_tokens_per_s, figures.file_mb, figures.benchmarks["mmlu"]) == (50.2, 1083, 47.3)


def test_published_figures_belong_to_models_of_the_catalogue() -> None:
    for name in card._figures()["models"]:
        assert published(name) is not None, name
    assert published("smollm2-135m-instruct") is None
    assert published("/somewhere/of/mine") is None


def test_settings_are_checked() -> None:
    settings = CardSettings(models=("a",))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"models": ()}, "at least one model"),
        ({"rounds": 0}, "`rounds` must be at least 1, got 0"),
        ({"questions": (Path("a/mmlu.jsonl"), Path("b/mmlu.jsonl"))}, "need different names"),
    ]
    for changes, message in wrong:
        with pytest.raises(ConfigError, match=message):
            replace(settings, **changes)
