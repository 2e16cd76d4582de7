"""What Prometheus reads. Labels take values out of fixed sets alone, so clients can't grow them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = one = CollectorRegistry()
        self._requests = Counter("featherweight_requests", "Requests answered", ["route", "status"], registry=one)
        self._seconds = Histogram(
            "featherweight_request_seconds",
            "From its head to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=one,
        )
        self._texts = Counter("featherweight_texts", "Texts answered", registry=one)
        self._tokens = Counter("featherweight_tokens", "Tokens that models saw", registry=one)
        self._batch_texts = Histogram("featherweight_batch_texts", "Texts of a batch", buckets=_COUNTS, registry=one)
        self._batch_seconds = Histogram(
            "featherweight_batch_seconds", "Time of a batch", buckets=_SECONDS, registry=one
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when it is read."""
        Gauge(f"featherweight_{name}", what, registry=self.registry).set_function(value)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, texts: int, tokens: int, seconds: float) -> None:
        self._texts.inc(texts)
        self._tokens.inc(tokens)
        self._batch_texts.observe(texts)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
