"""The Prometheus metrics of one gateway, in base units and in its own registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.calls import Reply
from service.domain import ModelKey, Target

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)
_SAMPLES = tuple(float(2**k) for k in range(15))
_MODEL = ("model", "version")
_RPC = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """All metrics, with methods that update them.

    Args:
        version: of the gateway, for `fount_build_info`.

    Attributes:
        registry: all of the metrics, for exposition.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        # A metric with its labels, from a cache: prometheus-client is slow, and a request updates a dozen.
        self._of: Callable[..., Any] = cache(lambda metric, *labels: metric.labels(*labels))
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_SECONDS)

        self._started = counter("grpc_server_started", "RPCs started.", _RPC)
        self._handled = counter("grpc_server_handled", "RPCs ended, by status.", (*_RPC, "grpc_code"))
        self._handling = histogram("grpc_server_handling_seconds", "Time from the start of an RPC to its end.", _RPC)
        self._samples = counter("fount_samples", "Samples sent to clients.", _MODEL)
        self._failed = counter("fount_failed_samples", "Samples that a worker could not draw.", _MODEL)
        self._first = histogram("fount_time_to_first_sample_seconds", "From a request to its first samples.", _MODEL)
        self._batch = histogram("fount_batch_size_samples", "Samples in one worker call.", _MODEL, buckets=_SAMPLES)
        self._call = histogram("fount_worker_call_seconds", "Time of worker calls, measured by the gateway.", _MODEL)
        self._queue = histogram("fount_queue_seconds", "From a request to its first worker call.", _MODEL)
        self._overhead = histogram("fount_worker_overhead_seconds", "A call's time outside the model.", _MODEL)
        self._compute = histogram("fount_worker_compute_seconds", "A call's time in noise, network, rounding.", _MODEL)
        self._streams = gauge("fount_open_streams", "Open sample streams.")
        self._repeated = counter("fount_repeated_calls", "Worker calls that were repeated.", (*_MODEL, "reason"))
        self._rejected = counter("fount_rejected_streams", "Refused streams.", ("reason",))
        self._rows = counter("fount_rows", "Rows of plans sent to clients.", ("source",))
        self._rejected_rows = counter("fount_rejected_rows", "Slots of plans for which no sample was accepted.")
        self._refused_samples = counter("fount_refused_samples", "Samples that the filters of plans refused.")
        self._variants = counter("fount_variants", "Variants of clients' own rows sent to them.")
        self._pulls = gauge("fount_open_pulls", "Open streams of rows.", ("rpc",))
        self._evaluations = gauge("fount_evaluations", "Stored evaluations by state.", ("state",))
        self._report_bytes = gauge("fount_evaluation_report_bytes", "Bytes of stored reports.")
        self._oldest = gauge("fount_evaluation_oldest_queued_seconds", "Waiting time of the oldest queued evaluation.")
        self._ready = gauge("fount_ready", "1 when the gateway should receive calls.")
        self._model_ready = gauge("fount_model_ready", "1 when the model is ready.", _MODEL)
        self._models = gauge("fount_models", "Model versions by state.", ("state",))
        self._loads = histogram("fount_model_load_seconds", "From the start of a model's workers to ready.", _MODEL)
        self._evictions = counter("fount_model_evictions", "Models whose workers were stopped to make room.", _MODEL)
        self._workers = gauge("fount_ready_workers", "Ready workers.", (*_MODEL, "numerics"))
        gauge("fount_build_info", "Always 1; the version is the label.", ("build_version",)).labels(version).set(1)

    def rpc_started(self, rpc: tuple[str, str, str]) -> None:
        """Count the start of an RPC: (type, service, method)."""
        self._of(self._started, *rpc).inc()

    def rpc_handled(self, rpc: tuple[str, str, str], code: str, seconds: float) -> None:
        """Count the end of an RPC."""
        self._of(self._handled, *rpc, code).inc()
        self._of(self._handling, *rpc).observe(seconds)

    def first_sample(self, model: ModelKey, seconds: float) -> None:
        """Record how long a stream waited for its first samples."""
        self._of(self._first, model.name, model.version).observe(seconds)

    def delivered(self, model: ModelKey, samples: int, failed: int) -> None:
        """Count samples sent, and those that failed."""
        self._of(self._samples, model.name, model.version).inc(samples)
        if failed:
            self._of(self._failed, model.name, model.version).inc(failed)

    def delivered_rows(self, counts: Mapping[str, int], *, rejected: int, refused: int) -> None:
        """Count rows sent by source, slots left empty, and the samples refused for all of them."""
        for source, count in counts.items():
            self._of(self._rows, source).inc(count)
        self._rejected_rows.inc(rejected)
        self._refused_samples.inc(refused)

    def delivered_variants(self, count: int) -> None:
        """Count variants sent."""
        self._variants.inc(count)

    @contextmanager
    def open_pull(self, rpc: str) -> Iterator[None]:
        """Count a stream of rows as open during the block."""
        self._pulls.labels(rpc).inc()
        try:
            yield
        finally:
            self._pulls.labels(rpc).dec()

    def evaluations(self, states: Mapping[str, int], *, report_bytes: int, oldest_queued_s: float) -> None:
        """Set the evaluations in each state, the size of reports, and the waiting time of the oldest queued one."""
        for state, count in states.items():
            self._evaluations.labels(state).set(count)
        self._report_bytes.set(report_bytes)
        self._oldest.set(oldest_queued_s)

    def watch_streams(self, count: Callable[[], int]) -> None:
        """Read the number of open streams whenever metrics are read."""
        self._streams.set_function(count)

    def queued(self, target: Target, seconds: float) -> None:
        """Record how long a stream waited until its first samples were sent to a worker."""
        self._of(self._queue, target.model.name, target.model.version).observe(seconds)

    def called(self, target: Target, samples: int, call_s: float, reply: Reply) -> None:
        """Record a worker call that was answered."""
        labels = (target.model.name, target.model.version)
        self._of(self._batch, *labels).observe(samples)
        self._of(self._call, *labels).observe(call_s)
        self._of(self._overhead, *labels).observe(max(0.0, call_s - reply.compute_s))
        self._of(self._compute, *labels).observe(reply.compute_s)

    def repeated(self, target: Target, reason: str) -> None:
        """Count a worker call that is repeated."""
        self._repeated.labels(target.model.name, target.model.version, reason).inc()

    def rejected(self, reason: str) -> None:
        """Count a refused stream."""
        self._rejected.labels(reason).inc()

    def model_loaded(self, name: str, version: str, seconds: float) -> None:
        """Record how long the workers of a model that is loaded on demand took to start."""
        self._loads.labels(name, version).observe(seconds)

    def model_evicted(self, name: str, version: str) -> None:
        """Count a model whose workers were stopped to make room."""
        self._evictions.labels(name, version).inc()

    def readiness(
        self, models: Mapping[tuple[str, str], Mapping[str, int]], states: Mapping[str, int], *, ready: bool
    ) -> None:
        """Set what is ready; workers by (name, version) and numerics, model versions by state."""
        self._ready.set(ready)
        for state, count in states.items():
            self._models.labels(state).set(count)
        self._model_ready.clear()
        self._workers.clear()
        for (name, version), workers in models.items():
            self._model_ready.labels(name, version).set(any(workers.values()))
            for numerics, count in workers.items():
                self._workers.labels(name, version, numerics).set(count)
