"""The share of the model in a worker's CPU time.

A worker cannot measure it itself, since waiting for a core looks like work. So the executed batches are read from the
gateway's histogram of samples per call, and their cost is measured in the limit's process, which does nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.plan import MODEL

__all__ = ["Calls", "calls_of", "model_cpu_s", "read_calls"]

_SERIES = "fount_batch_size_samples"


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Counts of worker calls.

    Attributes:
        by_bound: calls with at most so many samples and more than the next smaller bound.
        samples: of all calls.
    """

    by_bound: Mapping[float, float] = field(default_factory=dict)
    samples: float = 0.0

    def since(self, before: Calls) -> Calls:
        """Subtract the calls of an earlier reading."""
        by_bound = {bound: calls - before.by_bound.get(bound, 0.0) for bound, calls in self.by_bound.items()}
        return Calls(by_bound=by_bound, samples=self.samples - before.samples)


def read_calls(metrics: str) -> Calls:
    """Read a gateway's metrics; no calls without a URL."""
    if not metrics:
        return Calls()
    with urlopen(metrics, timeout=10) as response:  # noqa: S310 - our own gateway on loopback
        return calls_of(response.read().decode())


def calls_of(text: str) -> Calls:
    """Read the calls of the model from Prometheus's text, whose buckets are cumulative."""
    below: dict[float, float] = {}
    samples = 0.0
    for family in text_string_to_metric_families(text):
        for each in family.samples if family.name == _SERIES else ():
            if each.labels.get("model") == MODEL and each.name.endswith("_bucket"):
                below[float(each.labels["le"])] = each.value
            elif each.labels.get("model") == MODEL and each.name.endswith("_sum"):
                samples += each.value
    bounds = sorted(below)
    by_bound = {bound: below[bound] - (below[bounds[k - 1]] if k else 0.0) for k, bound in enumerate(bounds)}
    return Calls(by_bound=by_bound, samples=samples)


def model_cpu_s(calls: Calls, cpu_s_by_batch: Mapping[int, float]) -> float:
    """Compute the CPU-seconds of the batches of some calls.

    Args:
        calls: counts of calls.
        cpu_s_by_batch: CPU-seconds of one batch, by batch size.

    Returns:
        A call within the largest batch costs the smallest batch that fits. Samples of larger calls cost as much as in
        the batch with the lowest cost per sample.
    """
    total = held = 0.0
    lower = 0.0
    for bound, count in sorted(calls.by_bound.items()):
        fitting = [size for size in sorted(cpu_s_by_batch) if size >= bound]
        if fitting and count:
            total += count * cpu_s_by_batch[fitting[0]]
            held += count * (lower + 1 + bound) / 2
        lower = bound
    cheapest = min(cpu_s / size for size, cpu_s in cpu_s_by_batch.items())
    larger = any(count for bound, count in calls.by_bound.items() if bound > max(cpu_s_by_batch))
    return total + (max(0.0, calls.samples - held) * cheapest if larger else 0.0)
