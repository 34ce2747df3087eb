"""Stepping: which steps of a many-step draw one call takes.

A draw that would keep a worker too long is cut between steps: its call ends with the sampler's state, and another call
goes on from there, in other company and perhaps in another worker. All rows of a call stand at the same step. Enters:
the step of the draws, and how many the call may take. Leaves: a step range for the network to run, and what the
states that come and go with it look like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ALL_STEPS", "StepPlan", "StepRange"]


@dataclass(frozen=True, kw_only=True)
class StepRange:
    """Consecutive steps of a draw.

    Attributes:
        first: the step to begin with; above 0, the draw goes on from a state.
        stop: the step to be cut before; None goes on to the images.
    """

    first: int = 0
    stop: int | None = None


ALL_STEPS = StepRange()
"""A draw that is not cut."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """How one call cuts draws that can be cut.

    Attributes:
        steps: of the whole draw.
        first: the step all of the call's draws are at.
        limit: how many steps it takes at most; 0 for all.
        state_shape: of one row's state.
        usual_steps: of a draw without parameters, by which batches were timed.
    """

    steps: int
    first: int
    limit: int
    state_shape: tuple[int, ...]
    usual_steps: int

    @property
    def step_range(self) -> StepRange:
        """The steps that the call takes."""
        is_cut = 0 < self.limit < self.steps - self.first
        return StepRange(first=self.first, stop=self.first + self.limit if is_cut else None)

    @property
    def share(self) -> float:
        """The steps that the call takes, of those of a draw without parameters."""
        stop = self.step_range.stop or self.steps
        return max(1, stop - self.first) / max(1, self.usual_steps)

    @property
    def state_bytes(self) -> int:
        """What the states of one row take in a call that cuts a draw or goes on with one; 0 in any other."""
        return 4 * math.prod(self.state_shape) if self.step_range != ALL_STEPS else 0
