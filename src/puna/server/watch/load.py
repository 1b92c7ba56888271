"""What runs and waits right now, for Prometheus; looked at when it asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from puna.server.hosting.pool import ModelPool

__all__ = ["LoadCollector"]

_FIGURES = {
    "running": "Answers that are computed.",
    "waiting": "Answers that wait for their turn.",
    "cache_tokens": "Positions of the cache.",
    "cache_tokens_reserved": "Positions of the cache that running answers have set aside.",
    "refused": "Requests answered with 429 since the model was loaded.",
}


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
        for name, text in _FIGURES.items():
            family = GaugeMetricFamily(f"puna_{name}", text, labels=["model"])
            for model in self._pool.models.values():
                if model.loaded is not None:
                    family.add_metric([model.id], model.loaded.load()[name])
            yield family
