"""The expected errors of the service, by what the caller can do about them.

    request ──► servicer ──► catalog ──► scheduler ──► worker pool
       │            │            │            │             │
       │      InvalidRequest  UnknownName   Overloaded    NotReady, WorkerFault
       │      NotPermitted    Retired       TooLate       (WorkerLost is retried, then NotReady)

All but `SetupError` reach a client, with their text; `service/rpc/status.py` maps each to its status. Any other
exception is unexpected: logged with its traceback, answered as INTERNAL with a request id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "DatasetUnreadable",
    "EvaluationNotDone",
    "EvaluationRefused",
    "FountServiceError",
    "InvalidRequest",
    "JobsUnreachable",
    "Loading",
    "NotLoaded",
    "NotPermitted",
    "NotReady",
    "Overloaded",
    "PlanRefused",
    "Retired",
    "SetupError",
    "TicketInvalid",
    "TooLate",
    "UnknownEvaluation",
    "UnknownName",
    "Violation",
    "WorkerBusy",
    "WorkerFault",
    "WorkerLost",
]

_MOST_NAMED = 100  # violations in one message


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One wrong field.

    Attributes:
        field: its path in the request, as in `condition.mixture.components[2].weight`; empty: the whole request.
        description: what is wrong and what would be right.
        unknown: True when the value is well formed but names something that does not exist.
    """

    field: str
    description: str
    unknown: bool = False


class FountServiceError(Exception):
    """An expected error. The message contains the remedy.

    Attributes:
        reason: an UPPER_SNAKE word for programs; each class has its own.
    """

    reason: ClassVar[str]

    def __init_subclass__(cls, *, reason: str) -> None:
        cls.reason = reason


class InvalidRequest(FountServiceError, reason="INVALID_REQUEST"):
    """Fields of the request are wrong. Correct every field in the violations."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        texts = [": ".join(filter(None, (each.field, each.description))) for each in violations[:_MOST_NAMED]]
        if len(violations) > _MOST_NAMED:
            texts.append(f"and {len(violations) - _MOST_NAMED} more")
        super().__init__("; ".join(texts))


class UnknownName(InvalidRequest, reason="UNKNOWN_NAME"):
    """A name in the request is not known, and nothing else is wrong. ListModels lists the known ones."""


class TicketInvalid(InvalidRequest, reason="TICKET_INVALID"):
    """A ticket is of another service, was changed, or has expired. Plan again, and pull with the new ticket."""

    def __init__(self, message: str) -> None:
        super().__init__((Violation(field="ticket", description=message),))


class NotPermitted(FountServiceError, reason="NOT_PERMITTED"):
    """The caller lacks a grant. Request it from the operator of the service."""


class Retired(FountServiceError, reason="RETIRED"):
    """A pinned digest, numerics or operation is not served. Drop the pin, or use what GetModel lists."""


class PlanRefused(FountServiceError, reason="PLAN_REFUSED"):
    """A plan would change labels, or needs what is not served. Change what the message names."""


class DatasetUnreadable(FountServiceError, reason="DATASET_UNREADABLE"):
    """The files of a data set are absent or damaged. Correct the file and row that the message names."""


class UnknownEvaluation(FountServiceError, reason="UNKNOWN_EVALUATION"):
    """An evaluation is unknown, expired, deleted, or of another caller. ListEvaluations lists the caller's own."""


class EvaluationRefused(FountServiceError, reason="EVALUATION_REFUSED"):
    """A reference and a model do not fit, or evaluations are off. Change what the message names."""


class EvaluationNotDone(FountServiceError, reason="EVALUATION_NOT_DONE"):
    """A report is requested before the evaluation has ended. Watch the evaluation until it has succeeded."""


class JobsUnreachable(FountServiceError, reason="JOBS_UNREACHABLE"):
    """The database of evaluations does not answer. Try again; the log contains the reason."""


class Overloaded(FountServiceError, reason="OVERLOADED"):
    """A limit is reached, which clients see as RESOURCE_EXHAUSTED. Try again after `retry_after_s`.

    Raised for a stream by `scheduler/scheduler.py` (too many streams, or too much waiting work of a model, a caller or
    all); by `scheduler/stream.py` when a worker has too little memory for a call; for an evaluation by
    `evaluation/jobs/evaluations.py` (too many are queued).
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class NotReady(FountServiceError, reason="NOT_READY"):
    """No worker can do it now. Try again; GetModel returns the model's state."""


class NotLoaded(NotReady, reason="NOT_LOADED"):
    """A model has no workers: they are started when it is needed, and did not start. Try again after `retry_after_s`.

    Attributes:
        model: name and version.
        retry_after_s: when another attempt may succeed.
    """

    def __init__(self, message: str, *, model: tuple[str, str], retry_after_s: float = 1.0) -> None:
        self.model = model
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Loading(NotReady, reason="LOADING"):
    """Workers of a model are loading, and become ready or fail by themselves. Try again after `retry_after_s`."""

    retry_after_s = 1.0


class WorkerLost(NotReady, reason="WORKER_LOST"):
    """A worker went away in the middle of a call. It is repeated elsewhere, safely: addresses give the same bytes.

    Attributes:
        died: whether the worker's own process is known to have died during the call.
    """

    def __init__(self, message: str, *, died: bool = False) -> None:
        self.died = died
        super().__init__(message)


class WorkerBusy(NotReady, reason="WORKER_BUSY"):
    """A worker's queue is full, with calls of other gateways. The call is repeated after a moment."""


class TooLate(FountServiceError, reason="DEADLINE_PASSED"):
    """The deadline passed. Allow more time, or request fewer samples."""


class WorkerFault(FountServiceError, reason="WORKER_FAULT"):
    """A worker returned an invalid result. Do not repeat the call; report it with the request id."""


class SetupError(FountServiceError, reason="SETUP"):
    """The service cannot start as configured. The message names the setting and the remedy."""
