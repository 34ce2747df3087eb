"""What comes by the clock in a training run: checkpoints, pictures, lines, and the end of its time.

None of it touches the task, so a run that is drawn or put away more often has the same weights.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Clock", "Pace"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What comes by the clock.

    Attributes:
        max_seconds: stop then; None is never.
        checkpoint_seconds: between two checkpoints.
        picture_seconds: between two pictures.
        first_picture_seconds: before the first.
        line_seconds: between two lines where there is no progress bar.
    """

    max_seconds: float | None = None
    checkpoint_seconds: float = 60.0
    picture_seconds: float = 180.0
    first_picture_seconds: float = 20.0
    line_seconds: float = 60.0


class Clock:
    """What is due in this process, counted from when the clock was made."""

    def __init__(self, pace: Pace) -> None:
        self._start = time.monotonic()
        self._last = {"picture": self._start + pace.first_picture_seconds - pace.picture_seconds}

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def is_due(self, what: str, every_s: float) -> bool:
        """Tell whether it is time, and if so count from now."""
        now = time.monotonic()
        if now - self._last.get(what, self._start) < every_s:
            return False
        self._last[what] = now
        return True
