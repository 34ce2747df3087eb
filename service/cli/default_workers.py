"""How many worker processes `fount serve` starts for a model when nobody has said.

Samples per second grow with workers until every core has one; threads of one worker scale less, and are part of the
numerics, so that a default number of threads would change bytes with the machine. Cores and memory enter; a number of
workers and the reason leave.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DefaultWorkers", "default_workers", "format_count"]

WORKER_BYTES = 512 * 2**20
"""Memory of a worker process; those of the shipped models take 300 to 510 MB."""

MAX_WORKERS = 8
"""Of one model; more are worth measuring first."""


@dataclass(frozen=True, kw_only=True)
class DefaultWorkers:
    """A chosen number of workers.

    Attributes:
        workers: processes a model.
        reason: what limits them.
    """

    workers: int
    reason: str


def default_workers(*, models: int, threads: int, cores: int, available_bytes: int | None) -> DefaultWorkers:
    """Choose a number of workers, at least 1.

    Args:
        models: how many are served, 1 or more.
        threads: of each worker.
        cores: that may be used.
        available_bytes: of memory; None when it is unknown.
    """
    by_cores = min(MAX_WORKERS, max(1, cores // threads))
    if available_bytes is not None:
        by_memory = max(1, available_bytes // (models * WORKER_BYTES))
        if by_memory < by_cores:
            free = f"{available_bytes / 2**30:.1f} GiB of memory for {format_count(models, 'model')}"
            return DefaultWorkers(workers=by_memory, reason=free)
    return DefaultWorkers(workers=by_cores, reason=format_count(cores, "core"))


def format_count(number: int, noun: str) -> str:
    """Format a number of things, like "2 cores"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
