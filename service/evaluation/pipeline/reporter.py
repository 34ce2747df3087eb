"""Between the pipeline and whoever keeps evaluations: how far it is, what was found, and whether to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from service.evaluation.results import GateOutcome, Metric, PanelResult

__all__ = ["Desk", "Failed", "Over"]


class Failed(Exception):
    """The evaluation cannot succeed. The message is one sentence for people: why, and what to do."""


class Over(asyncio.CancelledError):
    """Nothing is to be written any more: it was cancelled or deleted, or another runner has it, or this one ends."""


class Desk(Protocol):
    """What one run tells. Every method raises Over; all but `fail` Failed, when there is no room to keep it."""

    async def tell(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        """Say how far it is; a reason is what it waits for."""
        ...

    async def partial(self, metrics: Sequence[Metric], panels: Sequence[PanelResult]) -> None:
        """Say what was found so far."""
        ...

    async def succeed(
        self,
        *,
        metrics: Sequence[Metric],
        panels: Sequence[PanelResult],
        gates: Sequence[GateOutcome],
        bundle: bytes,
    ) -> None:
        """End it with its report."""
        ...

    async def fail(self, reason: str) -> None:
        """End it without a report."""
        ...

    async def durably(self, work: Callable[[], Awaitable[str]]) -> str:
        """Do a piece of work unless an earlier run did it; returns what it returned."""
        ...
