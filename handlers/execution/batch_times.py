"""Batch times: how long a batch of each size takes now, kept up to date while batches run.

What was measured at load grows old: other workers start, another program takes a core. So every batch that runs moves
the estimate of its size, one stall moving it little, and the plan follows when an estimate has moved far enough. A size
that did not run for long is believed as it was measured again, so that one bad hour does not rule it out for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.execution.batch_plan import BatchPlan, plan_batches

__all__ = ["BatchTimes"]

_SLOWEST_GAIN = 0.1  # share of a new time in an estimate that has seen many
_STALL = 2.0  # times the estimate: what a slower batch counts as
_MOVED = 0.05  # share by which an estimate must have moved for a new plan
_FORGOTTEN = 256  # batches after which a size that did not run is believed as measured


@dataclass(kw_only=True)
class BatchTimes:
    """Seconds of a batch of each executed size.

    Attributes:
        measured: at load, for each size that may be executed; never empty.
    """

    measured: Mapping[int, float]
    _now: dict[int, float] = field(init=False)
    _planned: dict[int, float] = field(init=False)
    _seen: dict[int, int] = field(init=False)
    _idle: dict[int, int] = field(init=False)
    _plans: dict[int, BatchPlan] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._now = dict(self.measured)
        self._planned = dict(self.measured)
        self._seen = dict.fromkeys(self.measured, 1)
        self._idle = dict.fromkeys(self.measured, 0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that may be executed, ascending."""
        return tuple(sorted(self.measured))

    @property
    def seconds(self) -> Mapping[int, float]:
        """What a batch of each size takes now."""
        return dict(self._now)

    def plan(self, largest: int) -> BatchPlan:
        """Plan with the sizes up to the largest that there is memory for."""
        if largest not in self._plans:
            fitting = {size: seconds for size, seconds in self._planned.items() if size <= largest}
            self._plans[largest] = plan_batches(fitting)
        return self._plans[largest]

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a batch that ran."""
        estimate = self._now[size]
        gain = max(_SLOWEST_GAIN, 1 / (self._seen[size] + 1))
        self._now[size] = estimate + gain * (min(seconds, _STALL * estimate) - estimate)
        self._seen[size] += 1
        self._forget_others(size)
        if any(abs(now - self._planned[other]) > _MOVED * self._planned[other] for other, now in self._now.items()):
            self._planned = dict(self._now)
            self._plans.clear()

    def _forget_others(self, size: int) -> None:
        for other in self._idle:
            self._idle[other] = 0 if other == size else self._idle[other] + 1
            if self._idle[other] == _FORGOTTEN:
                self._now[other], self._seen[other], self._idle[other] = self.measured[other], 1, 0
