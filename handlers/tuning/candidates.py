"""Candidates: the ways of running a model that are worth measuring on a machine of so many cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from fount.tuned import TunedModel
from handlers.settings import Layout, Precision

__all__ = ["Candidate", "Goal", "list_candidates"]

Goal = Literal["throughput", "latency"]
_LAYOUTS: tuple[Layout, ...] = ("nchw", "nhwc")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to run a model.

    Attributes:
        workers: processes, all running at once.
        threads: of one operation, in each.
        precision: what weights and activations are kept in.
        layout: how pictures lie in memory.
        compiled: whether the network is compiled.
    """

    workers: int
    threads: int
    precision: Precision
    layout: Layout
    compiled: bool

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        return f"{self.workers}×{self.threads}, {self.precision}, {self.layout}{compiled}"

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's process is told."""
        return {
            "FOUNT_WORKER_THREADS": str(self.threads),
            "FOUNT_WORKER_PRECISION": self.precision,
            "FOUNT_WORKER_LAYOUT": self.layout,
            "FOUNT_WORKER_COMPILED": str(int(self.compiled)),
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    @property
    def entry(self) -> TunedModel:
        """What is written to the file that workers read."""
        return TunedModel(**vars(self))


def list_candidates(cores: int, precisions: Sequence[Precision], *, can_compile: bool) -> list[Candidate]:
    """List what to measure, what is quick to start first.

    Args:
        cores: processors this process may use.
        precisions: those the card allows.
        can_compile: whether there is a C++ compiler.

    Returns:
        One worker of one thread, and every power of two of workers whose threads fill the cores, or their largest
        power of two; each in all precisions and layouts.
    """
    full = 1 << (cores.bit_length() - 1)
    shares = [(1 << power, full >> power) for power in range(full.bit_length())]
    ways = product((False, True) if can_compile else (False,), dict.fromkeys([(1, 1), *shares]), precisions, _LAYOUTS)
    return [
        Candidate(workers=workers, threads=threads, precision=precision, layout=layout, compiled=compiled)
        for compiled, (workers, threads), precision, layout in ways
    ]
