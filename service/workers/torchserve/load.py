"""How much a replica has been given and not yet answered, of each target."""

from __future__ import annotations

import math

from service.domain import Call, Target

__all__ = ["Load"]

_UNKNOWN_S = 1e-6  # what a call whose cost nobody knows counts: enough for equal ones to alternate


class Load:
    """Calls in flight, and the time their workers are expected to take."""

    def __init__(self) -> None:
        self._costs: dict[Target, list[float]] = {}

    def add(self, call: Call) -> None:
        """Count a call."""
        self._costs.setdefault(call.target, []).append(max(call.cost_s, _UNKNOWN_S))

    def remove(self, call: Call) -> None:
        """Count it no more."""
        costs = self._costs[call.target]
        costs.remove(max(call.cost_s, _UNKNOWN_S))
        if not costs:
            del self._costs[call.target]

    def calls(self, target: Target) -> int:
        """How many calls are in flight."""
        return len(self._costs.get(target, ()))

    def seconds(self, target: Target) -> float:
        """What they cost together; summed anew each time, so that no rounding is left behind when they are gone."""
        return math.fsum(self._costs.get(target, ()))
