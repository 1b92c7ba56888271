"""Figures for Prometheus, in a registry of each server's own."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from puna.engine.request import Event, Usage

__all__ = ["AnswerMeter", "Metrics"]

_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
_OTHER = "_OTHER"  # as OpenTelemetry writes it
_WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_GAPS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """What the server counts.

    Attributes:
        registry: where everything is registered, collectors of other modules included.
        completion_tokens: new tokens of all answers.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        self.completion_tokens = 0
        self._requests = Counter(
            "puna_requests",
            "Requests by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "puna_tokens",
            "Tokens by kind: prompt, cached (those of the prompt that were known), completion.",
            ["model", "kind"],
            registry=self.registry,
        )
        self._first = Histogram(
            "puna_time_to_first_token_seconds",
            "From the request to its first token.",
            ["model"],
            registry=self.registry,
            buckets=_WAITS_S,
        )
        self._gap = Histogram(
            "puna_inter_token_seconds",
            "From one token of an answer to the next.",
            ["model"],
            registry=self.registry,
            buckets=_GAPS_S,
        )

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def on_request(self, method: str, route: str, status: int) -> None:
        """Count a request.

        Args:
            method: of HTTP; those that no route has count as one.
            route: its pattern, never the path itself, of which there could be any number.
            status: what it was answered.
        """
        self._requests.labels(method if method in _METHODS else _OTHER, route, str(status)).inc()

    def meter(self, model: str) -> AnswerMeter:
        """A meter for the answers of one request, whose time begins now."""
        return AnswerMeter(self, model)

    def on_first_token(self, model: str, seconds: float) -> None:
        """Take the time from a request to its first token."""
        self._first.labels(model).observe(seconds)

    def on_next_token(self, model: str, seconds: float) -> None:
        """Take the time from one token of an answer to the next."""
        self._gap.labels(model).observe(seconds)

    def on_usage(self, model: str, usage: Usage) -> None:
        """Take what an answer cost."""
        for kind in ("prompt", "cached", "completion"):
            self._tokens.labels(model, kind).inc(getattr(usage, f"{kind}_tokens"))


class AnswerMeter:
    """Counts the tokens of one request's answers and times them."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        """Made by `Metrics.meter`."""
        self._metrics, self._model = metrics, model
        self._begun_s = time.perf_counter()
        self._last_s: dict[int, float] = {}

    def on_event(self, index: int, event: Event) -> None:
        """Take an event.

        Args:
            index: which of the answers it belongs to.
            event: what came.
        """
        self._metrics.completion_tokens += len(event.tokens)
        if event.tokens:
            now = time.perf_counter()
            last_s = self._last_s.get(index)
            if last_s is None:
                self._metrics.on_first_token(self._model, now - self._begun_s)
            else:
                self._metrics.on_next_token(self._model, now - last_s)
            self._last_s[index] = now
        if event.usage is not None:
            self._metrics.on_usage(self._model, event.usage)
