"""What queues evaluations and remembers which steps are done, as the rest of the service sees it.

`durable.py` has the one there is; nothing else imports the library behind it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Engine", "Job"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """An evaluation as the engine has it.

    Attributes:
        id: of the evaluation.
        runner: who took it last; empty: nobody yet.
        queued: it waits for a runner.
        running: a runner has it, or had it when it died.
    """

    id: str
    runner: str
    queued: bool
    running: bool


class Engine(Protocol):
    """A durable queue of evaluations. Every method blocks; all but `open` may raise JobsUnreachable."""

    def open(self) -> None:
        """Connect, making tables where they are missing.

        Raises:
            SetupError: it cannot be used as configured.
        """
        ...

    def enqueue(self, evaluation_id: str) -> None:
        """Have a runner take it; nothing happens when it is there already."""
        ...

    def cancel(self, evaluation_id: str) -> None:
        """Take it from the queue; its runner, if it has one, stops by itself."""
        ...

    def forget(self, ids: Collection[str]) -> None:
        """Remove all that is known of these, and do not let them run."""
        ...

    def again(self, evaluation_id: str) -> None:
        """Have another runner go on with one whose runner is gone, behind its last finished step."""
        ...

    def jobs(self, ids: Collection[str]) -> list[Job]:
        """Those of these that are known."""
        ...

    def running(self) -> list[Job]:
        """Those that a runner has, or had when it died."""
        ...

    def ended(self, most: int) -> list[str]:
        """Some that will not run any more."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
