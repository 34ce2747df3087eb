"""Step ranges: which steps of a many-step draw one call takes.

A draw that would occupy a worker too long is preempted between steps: its call returns the sampler's state, and another
call resumes from there, in another batch and perhaps another worker. All rows of a call are at the same step. That step
and the limit of the call enter; the step range to run and the size of the states leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ALL_STEPS", "StepPlan", "StepRange"]


@dataclass(frozen=True, kw_only=True)
class StepRange:
    """Consecutive steps of a draw.

    Attributes:
        first: the first step; above 0, the draw resumes from a state.
        stop: the step before which the draw is preempted; None runs to the images.
    """

    first: int = 0
    stop: int | None = None


ALL_STEPS = StepRange()
"""A draw that is not preempted."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The steps that one call takes of its draws.

    Attributes:
        steps: of the whole draw.
        first: the step all draws of the call are at.
        limit: of steps in this call; None for no limit.
        state_shape: of one row's state.
        usual_steps: of a draw without parameters, by which batches were timed.
    """

    steps: int
    first: int
    limit: int | None
    state_shape: tuple[int, ...]
    usual_steps: int

    @property
    def step_range(self) -> StepRange:
        """The steps of this call."""
        is_preempted = self.limit is not None and self.limit < self.steps - self.first
        return StepRange(first=self.first, stop=self.first + (self.limit or 0) if is_preempted else None)

    @property
    def share(self) -> float:
        """The number of steps of this call relative to a draw without parameters."""
        stop = self.step_range.stop or self.steps
        return max(1, stop - self.first) / max(1, self.usual_steps)

    @property
    def state_bytes(self) -> int:
        """Size of one row's states in a call that preempts or resumes draws; 0 in any other."""
        return 4 * math.prod(self.state_shape) if self.step_range != ALL_STEPS else 0
