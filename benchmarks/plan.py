"""The plan of a run: workloads, durations, precisions, and layouts of workers and threads.

Command-line options enter; one value leaves that everything else reads, so that only this module knows --quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "GATEWAY_OPTIONS", "MAX_BATCH_MS", "MODEL", "OTHERS_WORKLOADS", "WORKLOADS", "Layout", "Plan", "Precision",
    "layouts", "precisions_of", "quick_plan", "worker_options",
]  # fmt: skip

Precision = Literal["fp32", "bf16"]

MODEL = "mnist-cgan"

MAX_BATCH_MS = 20
"""How long a batch may take while interactive work waits."""

GATEWAY_OPTIONS = ("--max-batch-ms", str(MAX_BATCH_MS))
"""Options of every gateway, in addition to its ports."""

WORKLOADS = {
    "bulk": "1024 samples × 2 clients",
    "medium": "64 samples × 4 clients",
    "small": "1 sample × 32 clients",
    "single": "1 sample × 1 client",
    "interactive": "8 samples every 50 ms while a 1 000 000-sample pull runs",
    "first-chunk": "first chunk of 1 000 000",
    "scale": "10^3 to 10^6 samples",
    "replicas": "two TorchServe processes",
    "transformed": "transformed rows of a plan, 4 shards",
}
"""Names for --only, in the order they are measured."""

OTHERS_WORKLOADS = ("bulk", "medium", "small", "single")
"""Those that other servers run too."""

_SLOW = ("scale", "replicas", "transformed")
_IN_BOTH = ("bulk", "medium")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many workers share the cores, with how many threads.

    Attributes:
        workers: processes.
        threads: torch threads of each.
    """

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers}×{self.threads}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of one run.

    Attributes:
        rounds: how often everything is measured, interleaved.
        precisions: of the workers.
        workloads: names of `WORKLOADS`.
        layouts: workers × threads in which every server is measured.
        peers: whether mosec and LitServe are measured.
        warm_up_s: load on each server before any measurement, while Java compiles.
        ramp_s: load before each window.
        limit_s, throughput_s, latency_s: windows.
        paced_requests: interactive requests of one round, idle and under load each.
        first_chunks: first chunks measured in one round.
        counts: samples of one request, and requests of that size in a round.
        final_counts: the largest counts, measured in the last round only.
        pause_s: between two loads, until cancelled requests have ended.
    """

    rounds: int
    precisions: tuple[Precision, ...]
    workloads: tuple[str, ...]
    layouts: tuple[Layout, ...]
    peers: bool = True
    warm_up_s: float = 10.0
    ramp_s: float = 0.5
    limit_s: float = 2.0
    throughput_s: float = 3.0
    latency_s: float = 2.0
    paced_requests: int = 150
    first_chunks: int = 8
    counts: tuple[tuple[int, int], ...] = ((1_000, 2), (10_000, 1))
    final_counts: tuple[int, ...] = (100_000, 1_000_000)
    pause_s: float = 0.5

    def has(self, *workloads: str) -> bool:
        """Whether any of these is measured."""
        return any(each in self.workloads for each in workloads)

    def workloads_in(self, precision: Precision) -> tuple[str, ...]:
        """List the workloads of one precision; with several, others than fp32 have only those that compare both."""
        both = len(self.precisions) > 1 and precision != "fp32"
        served = (each for each in self.workloads if each != "transformed")  # it has processes of its own
        return tuple(each for each in served if not both or each in _IN_BOTH)


def quick_plan(workloads: tuple[str, ...], cores: int) -> Plan:
    """Plan two short rounds in fp32 with one layout.

    Args:
        workloads: their names; the slow ones are left out when all are named.
        cores: of the machine.
    """
    if len(workloads) == len(WORKLOADS):
        workloads = tuple(each for each in workloads if each not in _SLOW)
    return Plan(
        rounds=2,
        precisions=("fp32",),
        workloads=workloads,
        layouts=layouts(cores)[:1],
        ramp_s=0.3,
        limit_s=0.6,
        throughput_s=1.5,
        latency_s=0.8,
        paced_requests=30,
        first_chunks=2,
        counts=((1_000, 1), (10_000, 1)),
        final_counts=(),
        pause_s=0.3,
    )


def layouts(cores: int) -> tuple[Layout, ...]:
    """List the two ways to use all cores: one process with all threads, or one process for each core."""
    if cores == 1:
        return (Layout(workers=1, threads=1),)
    return Layout(workers=1, threads=cores), Layout(workers=cores, threads=1)


def precisions_of(choice: str) -> tuple[Precision, ...]:
    """Read --precision."""
    chosen: dict[str, tuple[Precision, ...]] = {"fp32": ("fp32",), "bf16": ("bf16",), "both": ("fp32", "bf16")}
    return chosen[choice]


def worker_options(layout: Layout, precision: Precision) -> tuple[str, ...]:
    """List the options of `fount serve`, or of a separate TorchServe, for a layout."""
    return "--workers", str(layout.workers), "--threads", str(layout.threads), "--precision", precision
