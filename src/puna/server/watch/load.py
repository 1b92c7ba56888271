"""What runs and waits right now, for Prometheus; looked at when it asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from puna.server.hosting.pool import ModelPool

__all__ = ["LoadCollector"]

_FIGURES = {
    "running": "Answers that are computed.",
    "waiting": "Answers that wait for their turn.",
    "cache_tokens": "Positions of the cache.",
    "cache_tokens_reserved": "Positions of the cache that running answers have set aside.",
}
_REFUSED = "Requests that were sent away since the model was loaded: too many waited."


class LoadCollector(Collector):
    """Figures of every model in memory."""

    def __init__(self, pool: ModelPool) -> None:
        """Look at these models.

        Args:
            pool: the models.
        """
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """See Prometheus's client."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            name: GaugeMetricFamily(f"puna_{name}", text, labels=["model"]) for name, text in _FIGURES.items()
        }
        families["refused"] = CounterMetricFamily("puna_refused", _REFUSED, labels=["model"])
        for name, family in families.items():
            for model in self._pool.models.values():
                if model.loaded is not None:
                    family.add_metric([model.id], model.loaded.load()[name])
            yield family
