"""The worker pool: choose the replica that executes a call.

A `Call` enters, a `Reply` leaves. `torchserve` is the real pool; `memory` is the test double that ships with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from service.calls import Call, Reply
from service.domain import ModelState, ServedModel, Target

__all__ = ["CALLS_PER_WORKER", "Offer", "WorkerPool"]

CALLS_PER_WORKER = 2
"""Calls a worker holds at once: one runs, one hides the transfer. More wait where they can still be reordered."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the workers of one model version at one address serve.

    Attributes:
        name, version: of the model, known before it is described.
        model: what they serve; None while they have not described it.
        numerics: their numerics id; empty until described.
        state: whether they can serve.
        reason: why not; empty when ready.
        workers: how many are ready.
        batch_seconds: the batch sizes they execute, and how long one of each took at warm-up; empty when unknown.
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
        """Begin to look for workers; return at once, since offers appear as workers load."""
        ...

    async def close(self) -> None:
        """Disconnect from every worker."""
        ...

    def offers(self) -> tuple[Offer, ...]:
        """Return what is served now, from memory."""
        ...

    def is_discovered(self) -> bool:
        """Whether every address has reported its models at least once; until then, an unknown name may yet appear."""
        ...

    def hold(self, name: str, version: str) -> None:
        """Keep a model's workers until the current task ends; without effect where workers are not started on demand.

        Raises:
            NotLoaded: it has none now; `load` starts them.
        """
        ...

    async def load(self, name: str, version: str) -> bool:
        """Wait for a model's workers, started on demand, and hold them; False: this pool does not start them.

        Raises:
            NotLoaded: they did not start.
        """
        ...

    def report_loads(self, loaded: Callable[[str, str, float], None], evicted: Callable[[str, str], None]) -> None:
        """Call `loaded` with the seconds it took, and `evicted`, whenever a model is started or stopped on demand."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever offers or capacity may have changed."""
        ...

    def workers(self, target: Target) -> int:
        """Return how many ready workers a target has now."""
        ...

    def capacity(self, target: Target) -> int:
        """Return how many more calls the target's workers accept now: CALLS_PER_WORKER each, less those in flight."""
        ...

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Execute a call on the worker with the least outstanding cost.

        Raises:
            NotReady: the target has no ready worker.
            WorkerBusy: a worker's queue is full; the call may be repeated, and does not count as an attempt.
            WorkerLost: the worker went away; the call may be repeated.
            WorkerFault: the worker returned an invalid result; it may not be repeated.
            TooLate: there was no reply within `timeout_s`.
        """
        ...
