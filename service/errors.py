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

__all__ = [
    "DatasetUnreadable",
    "EvaluationNotDone",
    "EvaluationRefused",
    "FountServiceError",
    "InvalidRequest",
    "JobsUnreachable",
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


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One wrong field.

    Attributes:
        field: its path in the request, as in `condition.mixture.components[2].weight`.
        description: what is wrong and what would be right.
        unknown: True when the value is well formed but names something that does not exist.
    """

    field: str
    description: str
    unknown: bool = False


class FountServiceError(Exception):
    """An expected error. The message contains the remedy.

    Attributes:
        reason: an UPPER_SNAKE word for programs.
    """

    reason = "UNSPECIFIED"


class InvalidRequest(FountServiceError):
    """Fields of the request are wrong. Correct every field in the violations."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in violations))


class UnknownName(InvalidRequest):
    """A name in the request is not known, and nothing else is wrong. ListModels lists the known ones."""

    reason = "UNKNOWN_NAME"


class TicketInvalid(InvalidRequest):
    """A ticket is of another service, was changed, or has expired. Plan again, and pull with the new ticket."""

    reason = "TICKET_INVALID"

    def __init__(self, message: str) -> None:
        super().__init__((Violation(field="ticket", description=message),))


class NotPermitted(FountServiceError):
    """The caller lacks a grant. Request it from the operator of the service."""

    reason = "NOT_PERMITTED"


class Retired(FountServiceError):
    """A pinned digest, numerics or operation is not served. Drop the pin, or use what GetModel lists."""

    reason = "RETIRED"


class PlanRefused(FountServiceError):
    """A plan would change labels, or needs what is not served. Change what the message names."""

    reason = "PLAN_REFUSED"


class DatasetUnreadable(FountServiceError):
    """The files of a data set are absent or damaged. Correct the file and row that the message names."""

    reason = "DATASET_UNREADABLE"


class UnknownEvaluation(FountServiceError):
    """An evaluation is unknown, expired, deleted, or of another caller. ListEvaluations lists the caller's own."""

    reason = "UNKNOWN_EVALUATION"


class EvaluationRefused(FountServiceError):
    """A reference and a model do not fit, or evaluations are off. Change what the message names."""

    reason = "EVALUATION_REFUSED"


class EvaluationNotDone(FountServiceError):
    """A report is requested before the evaluation has ended. Watch the evaluation until it has succeeded."""

    reason = "EVALUATION_NOT_DONE"


class JobsUnreachable(FountServiceError):
    """The database of evaluations does not answer. Try again; the log contains the reason."""

    reason = "JOBS_UNREACHABLE"


class Overloaded(FountServiceError):
    """A queue or a quota is full. Try again after `retry_after_s`."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class NotReady(FountServiceError):
    """No worker can do it now. Try again; GetModel returns the model's state."""

    reason = "NOT_READY"


class WorkerLost(NotReady):
    """A worker went away in the middle of a call. It is repeated elsewhere, safely: addresses give the same bytes.

    Attributes:
        died: whether the worker's own process is known to have died during the call.
    """

    reason = "WORKER_LOST"

    def __init__(self, message: str, *, died: bool = False) -> None:
        self.died = died
        super().__init__(message)


class WorkerBusy(NotReady):
    """A worker's queue is full, with calls of other gateways. The call is repeated after a moment."""

    reason = "WORKER_BUSY"


class TooLate(FountServiceError):
    """The deadline passed. Allow more time, or request fewer samples."""

    reason = "DEADLINE_PASSED"


class WorkerFault(FountServiceError):
    """A worker returned an invalid result. Do not repeat the call; report it with the request id."""

    reason = "WORKER_FAULT"


class SetupError(FountServiceError):
    """The service cannot start as configured. The message names the setting and the remedy."""

    reason = "SETUP"
