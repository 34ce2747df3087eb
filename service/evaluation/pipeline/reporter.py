"""The interface between the pipeline and the store of evaluations: progress, results and finished steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.evaluation.results import GateOutcome, Metric, PanelResult

__all__ = ["Failed", "JobReporter", "LeaseLost", "Results"]


class Failed(Exception):
    """The evaluation cannot succeed. The message is one sentence for users: the cause and the remedy."""


class LeaseLost(Exception):
    """This run must write no more: the evaluation was cancelled or deleted, or is, or will be, another runner's."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Metrics and verdicts of panels."""

    metrics: Sequence[Metric]
    panels: Sequence[PanelResult]


class JobReporter(Protocol):
    """Receives what one run reports. Every method raises LeaseLost; all but `fail` raise Failed if the disk is full."""

    async def report_progress(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        """Store how far the run is; the reason is what it waits for."""

    async def report_results(self, results: Results) -> None:
        """Store the results so far."""

    async def succeed(self, results: Results, gates: Sequence[GateOutcome], bundle: bytes) -> None:
        """End the evaluation with its report."""

    async def fail(self, reason: str) -> None:
        """End the evaluation without a report."""

    async def run_step(self, work: Callable[[], Awaitable[str]]) -> str:
        """Run a step unless an earlier run finished it; return its result."""
