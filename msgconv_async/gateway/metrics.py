"""The metrics for Prometheus. Names and units follow its conventions.

Labels are only the accounts that are served. An account has no series before it was asked, so
thousands of idle accounts cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from msgconv_async.pacing.pacer import PacerStats

_PREFIX = "msgconv_gateway"
_COUNTERS: dict[str, tuple[str, Callable[[PacerStats], float]]] = {
    "sent": ("Requests sent to the service.", lambda stats: stats.sent),
    "answered": ("Requests that the service accepted.", lambda stats: stats.answered),
    "throttled": ("Requests that the service refused with 429.", lambda stats: stats.throttled),
    "retried": ("Requests that repeated one that had failed.", lambda stats: stats.retried),
}
_GAUGES: dict[str, tuple[str, Callable[[PacerStats], float]]] = {
    "requests_waiting": ("Requests in the account's queue.", lambda stats: stats.waiting),
    "requests_in_flight": ("Requests at the service now.", lambda stats: stats.in_flight),
    "believed_requests_per_second": ("Starts allowed a second.", lambda stats: stats.rate),
    "believed_concurrency": ("Requests allowed at once.", lambda stats: stats.concurrency),
}
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
_UNKNOWN = ""
"""The account label of questions about no account that is served."""

CONTENT_TYPE = CONTENT_TYPE_LATEST


class AccountMetrics(NamedTuple):
    """The counters of one account.

    Attributes:
        documents: Documents given, by their source.
        seconds: The times from a question's arrival to its answer.
    """

    documents: dict[str, Counter]
    seconds: Histogram


class Metrics:
    """Counts questions, and reports the figures of the pacers.

    Args:
        paced: Returns the figures of the pacers of those accounts that were asked.
    """

    def __init__(self, paced: Callable[[], Iterable[tuple[str, PacerStats]]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PacerCollector(_PREFIX, paced))
        self._documents = Counter(
            f"{_PREFIX}_documents",
            "Documents given, by where they came from: hit, shared or fetched.",
            ["account", "source"],
            registry=self._registry,
        )
        self._refusals = Counter(
            f"{_PREFIX}_refusals",
            "Answers without a document, by kind.",
            ["account", "kind"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            f"{_PREFIX}_request_duration_seconds",
            "Seconds from a question's arrival to its answer.",
            ["account"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def of(self, account_id: str) -> AccountMetrics:
        """Return the counters of an account that is served."""
        return AccountMetrics(
            {
                source: self._documents.labels(account_id, source)
                for source in ("hit", "shared", "fetched")
            },
            self._seconds.labels(account_id),
        )

    def refused(self, account_id: str | None, kind: str) -> None:
        """Count an answer without a document; None for an account that is not served."""
        self._refusals.labels(account_id or _UNKNOWN, kind).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class PacerCollector(Collector):
    """Reports the figures of pacers.

    Args:
        prefix: The beginning of the metrics' names.
        paced: Returns the figures of the pacers, with the ids of their accounts.
    """

    def __init__(self, prefix: str, paced: Callable[[], Iterable[tuple[str, PacerStats]]]) -> None:
        self._prefix = prefix
        self._paced = paced

    def describe(self) -> Iterable[Metric]:
        """Name no family before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each family, over all accounts that were asked."""
        paced = list(self._paced())
        for name, (text, value) in _COUNTERS.items():
            counter = CounterMetricFamily(
                f"{self._prefix}_requests_{name}", text, labels=["account"]
            )
            for account_id, stats in paced:
                counter.add_metric([account_id], value(stats))
            yield counter
        for name, (text, value) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=["account"])
            for account_id, stats in paced:
                gauge.add_metric([account_id], value(stats))
            yield gauge
        follows = GaugeMetricFamily(
            f"{self._prefix}_limited_by",
            "1 for the one of rate and concurrency that follows the service's limit.",
            labels=["account", "knob"],
        )
        for account_id, stats in paced:
            for knob in ("rate", "concurrency"):
                follows.add_metric([account_id, knob], float(stats.limited_by == knob))
        yield follows
