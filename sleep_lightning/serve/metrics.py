"""Counters in Prometheus' text format. No label names an owner or a session."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sleep_lightning.serve.work import Work
    from sleep_lightning.session import SessionPool

PREFIX = "sleep_lightning_"


class Metrics(Collector):
    """Of one server.

    Args:
        pool: its sessions.
        work: its queue.
    """

    def __init__(self, pool: "SessionPool", work: "Work") -> None:
        self._pool, self._work, self.registry = pool, work, CollectorRegistry()
        labels = ("method", "route")
        self.requests = Counter(f"{PREFIX}requests", "Answered requests.", (*labels, "status"), registry=self.registry)
        self.seconds = Histogram(
            f"{PREFIX}request_seconds",
            "From a request to the end of its answer.",
            labels,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=self.registry,
        )
        self.tokens = Counter(f"{PREFIX}tokens", "Tokens by what was done.", ("kind",), registry=self.registry)
        self.registry.register(self)
        pool.engine.slept = self.tokens.labels("slept on").inc

    def collect(self) -> "Iterable[Metric]":
        """What is asked for only when it is scraped."""
        entries, pool = self._pool.entries, self._pool
        for name, about, value in (
            ("sessions", "Sessions, in memory or on disk.", len(entries)),
            ("sessions_in_memory", "Sessions in memory.", entries.in_memory),
            ("memory_bytes", "Bytes of the sessions in memory.", entries.in_memory * pool.session_bytes),
            ("memory_bytes_limit", "Bytes that sessions may take.", pool.max_bytes),
            ("loads", "Sessions read from disk.", entries.loads),
            ("evictions", "Sessions put aside on disk.", entries.evictions),
            ("queued", "Sleeps and readings in the queue.", self._work.all_queued),
        ):
            yield GaugeMetricFamily(f"{PREFIX}{name}", about, value=value)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
