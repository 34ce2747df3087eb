"""What is known of one evaluation, and what servicers ask of the place where evaluations are kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.evaluation.results import GateOutcome, Metric, PanelResult
from service.evaluation.specification import Specification

__all__ = ["ID", "Evaluations", "Progress", "Record", "State", "Usage"]


ID = re.compile("[0-9a-f]{27}")
"""Of evaluations: the time it was made at, so that they are in order, and chance."""


class State(StrEnum):
    """Where an evaluation is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it is: steps done of those there are (0: not known yet), and when its runner last said so."""

    stage: str = ""
    done: int = 0
    total: int = 0
    update_unix_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """One evaluation.

    Attributes:
        id: names it; an `ID`.
        subject: whose it is.
        request_id: of the request; empty: it had none.
        request_digest: of the request, to tell a repetition from another one with its id.
        specification: what was asked for, resolved.
        state: where it is.
        reason: one sentence for people; empty: nothing to say.
        progress: how far it is.
        metrics, panels: those known so far.
        gates: empty until it has succeeded.
        create_unix_s: when it was asked for.
        start_unix_s, end_unix_s, expire_unix_s: 0 until known.
        report_bytes: how much room its report takes.
    """

    id: str
    subject: str
    request_id: str
    request_digest: str
    specification: Specification
    state: State
    reason: str = ""
    progress: Progress = Progress()
    metrics: tuple[Metric, ...] = ()
    panels: tuple[PanelResult, ...] = ()
    gates: tuple[GateOutcome, ...] = ()
    create_unix_s: float
    start_unix_s: float = 0.0
    end_unix_s: float = 0.0
    expire_unix_s: float = 0.0
    report_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What evaluations take: how many in each state, bytes of reports kept, how long the oldest queued one waits."""

    states: Mapping[State, int]
    report_bytes: int
    oldest_queued_s: float


class Evaluations(Protocol):
    """Where evaluations are kept. Every method may raise JobsUnreachable: the database does not answer."""

    async def start(self) -> None:
        """Open the database, making its tables where they are missing.

        Raises:
            SetupError: it cannot be used as configured.
        """
        ...

    async def close(self) -> None:
        """Let go of it; running evaluations go on, or are taken up again later."""
        ...

    async def create(
        self, subject: str, specification: Specification, *, request_id: str = "", request_digest: str = ""
    ) -> Record:
        """Keep and queue an evaluation; the earlier one where the subject has one of that request_id.

        Raises:
            Overloaded: too many are queued.
        """
        ...

    async def find(self, subject: str, request_id: str) -> Record | None:
        """The evaluation that a request_id made."""
        ...

    async def get(self, subject: str, evaluation_id: str) -> Record:
        """One evaluation.

        Raises:
            UnknownEvaluation: there is none of that id, or it is someone else's.
        """
        ...

    async def list(
        self, subject: str, *, states: Collection[State] = (), model: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Record]:
        """Evaluations, newest first, from behind the one named `after` on; without metrics."""
        ...

    async def cancel(self, subject: str, evaluation_id: str) -> Record:
        """End one that is queued or running; raises as `get`."""
        ...

    async def delete(self, subject: str, evaluation_id: str) -> None:
        """Cancel where needed and remove it; raises as `get`."""
        ...

    async def report(self, subject: str, evaluation_id: str) -> bytes:
        """The report's bundle as `service.evaluation.report.bundle` packs it; raises as `get`.

        Raises:
            EvaluationNotDone: it has not succeeded.
        """
        ...

    async def usage(self) -> Usage:
        """Of all subjects together."""
        ...
