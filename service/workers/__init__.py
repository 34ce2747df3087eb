"""The worker pool: which replica does a call.

A `Call` enters, a `Reply` leaves. `torchserve` is the real pool; `memory` is the double that ships beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from service.domain import Call, ModelState, Reply, ServedModel, Target

__all__ = ["CALLS_PER_WORKER", "Offer", "WorkerPool"]

CALLS_PER_WORKER = 2
"""Calls a worker holds at once: one runs, one hides the way there. The rest waits where it can still be reordered."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a group of workers of one address offers.

    Attributes:
        model: what they serve; None while they have not described it.
        name: the model's name, known before it is described.
        version: likewise.
        numerics: their numerics id; empty until described.
        state: whether they can serve.
        reason: why not; empty when ready.
        workers: how many are ready.
        batch_seconds: the batch sizes they execute, and how long one of each took at warm-up; empty when not told.
    """

    name: str
    version: str
    model: ServedModel | None = None
    numerics: str = ""
    state: ModelState = ModelState.LOADING
    reason: str = ""
    workers: int = 0
    batch_seconds: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def target(self) -> Target | None:
        """Where calls to these workers go; None unless they are ready."""
        if self.model is None or self.state is not ModelState.READY:
            return None
        return Target(model=self.model.key, numerics=self.numerics)


class WorkerPool(Protocol):
    """Workers, wherever they run."""

    async def start(self) -> None:
        """Begin to look for workers; returns at once, offers appear as workers load."""
        ...

    async def close(self) -> None:
        """Let go of every worker."""
        ...

    def offers(self) -> tuple[Offer, ...]:
        """What is offered now, cheaply."""
        ...

    def is_discovered(self) -> bool:
        """Whether every address has told what it serves, at least once; until then an unknown name may yet appear."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever offers may have changed."""
        ...

    def workers(self, target: Target) -> int:
        """How many ready workers a target has now."""
        ...

    def capacity(self, target: Target) -> int:
        """How many more calls the target's workers take now: CALLS_PER_WORKER each, less those in flight."""
        ...

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Have the worker with the least outstanding cost do a call.

        Raises:
            NotReady: the target has no ready worker.
            WorkerBusy: a worker's queue is full; the call may be repeated, and does not count as tried.
            WorkerLost: the worker went away; the call may be repeated.
            WorkerFault: the worker answered wrongly; it may not.
            TooLate: no answer within `timeout_s`.
        """
        ...
