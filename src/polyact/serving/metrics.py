"""What Prometheus reads at /metrics. Every server counts for itself."""

from collections.abc import Callable
from typing import Any

from polyact.errors import need

LATENCY = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, histograms and gauges of one server, by run."""

    def __init__(self, connections: Callable[[], int], waiting: Callable[[], int], ready: Callable[[], bool]):
        prometheus = need("prometheus_client", "serve", "serving")
        self._text: Callable[[Any], bytes] = prometheus.generate_latest
        self.content_type: str = prometheus.CONTENT_TYPE_LATEST
        self.registry = prometheus.CollectorRegistry()
        own = {"registry": self.registry, "namespace": "polyact"}
        self._latency = prometheus.Histogram(
            "request_seconds", "From a request's arrival to its answer", ["run"], buckets=LATENCY, **own
        )
        self._inference = prometheus.Histogram("inference_seconds", "One compiled call", ["run"], buckets=LATENCY, **own)
        self._batch = prometheus.Histogram("batch_size", "Requests answered by one compiled call", ["run"], buckets=BATCH, **own)
        self._answers = prometheus.Counter("answers", "Answers, those of the fallback included", ["run"], **own)
        self._late = prometheus.Counter("late", "Answers of the fallback, because the policy's was late", ["run"], **own)
        self._share = prometheus.Gauge("late_share", "Late answers over all answers since the start", ["run"], **own)
        self._errors = prometheus.Counter("errors", "Requests and connections refused", ["kind"], **own)
        self._reloads = prometheus.Counter("reloads", "Times that a run was read again", ["run", "outcome"], **own)
        for name, help, value in (
            ("connections", "Open connections", connections),
            ("waiting", "Requests that wait for a compiled call", waiting),
            ("ready", "1 when every run is compiled and no shutdown began", ready),
        ):
            prometheus.Gauge(name, help, **own).set_function(value)
        self._runs: dict[str, RunMetrics] = {}

    def of(self, run: str) -> "RunMetrics":
        """Those of one run, looked up once."""
        if run not in self._runs:
            kinds = (self._latency, self._answers, self._late, self._share)
            self._runs[run] = RunMetrics(*(kind.labels(run) for kind in kinds))
        return self._runs[run]

    def computed(self, run: str, seconds: float, batch: int) -> None:
        """One compiled call."""
        self._inference.labels(run).observe(seconds)
        self._batch.labels(run).observe(batch)

    def refused(self, kind: str) -> None:
        """One request or connection that was not served."""
        self._errors.labels(kind).inc()

    def reloaded(self, run: str, outcome: str) -> None:
        """A run was read again: "done" or "failed"."""
        self._reloads.labels(run, outcome).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return self._text(self.registry)


class RunMetrics:
    """What is counted for every answer of a run."""

    def __init__(self, latency: Any, answers: Any, late: Any, share: Any):
        self._latency, self._answers, self._late = latency, answers, late
        self._total, self._missed = 0, 0
        share.set_function(lambda: self._missed / max(1, self._total))

    def answered(self, seconds: float, late: bool) -> None:
        """One answer, after so many seconds."""
        self._latency.observe(seconds)
        self._answers.inc()
        self._total += 1
        if late:
            self._missed += 1
            self._late.inc()
