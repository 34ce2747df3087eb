"""What the scheduler tells telemetry."""

from __future__ import annotations

from typing import Protocol

from service.domain import Reply, Target

__all__ = ["SchedulerMeter"]


class SchedulerMeter(Protocol):
    """What the scheduler tells telemetry."""

    def streams(self, open_streams: int) -> None:
        """Tell how many streams are open."""
        ...

    def queued(self, target: Target, seconds: float) -> None:
        """Tell how long a stream waited until its first samples were sent to a worker."""
        ...

    def called(self, target: Target, samples: int, call_s: float, reply: Reply) -> None:
        """Tell of one call answered."""
        ...

    def repeated(self, target: Target, reason: str) -> None:
        """Tell of one call that will be sent again."""
        ...

    def rejected(self, reason: str) -> None:
        """Tell of one stream refused."""
        ...
