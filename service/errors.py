"""What can go wrong, sorted by who can mend it.

    request ──► servicer ──► catalog ──► scheduler ──► worker pool
       │            │            │            │             │
       │      InvalidRequest  UnknownName   Overloaded    NotReady, WorkerFault
       │      NotPermitted    Retired       TooLate       (WorkerLost is retried, then NotReady)

    FountServiceError
    ├── InvalidRequest    fields of the request are wrong
    │   ├── UnknownName   a model, version or label is not known
    │   └── TicketInvalid a ticket is not one of ours, was changed, or has expired
    ├── NotPermitted      the caller lacks a grant
    ├── Retired           a pinned digest, numerics or operation is not served
    ├── PlanRefused       a plan would change labels, or needs what is not served
    ├── DatasetUnreadable the files of a data set are absent or damaged
    ├── UnknownEvaluation an evaluation is unknown, gone, or someone else's
    ├── EvaluationRefused a reference and a model do not fit, or evaluations are off
    ├── EvaluationNotDone a report is asked for before there is one
    ├── JobsUnreachable   the database of evaluations does not answer
    ├── Overloaded        a queue or a quota is full
    ├── NotReady          no worker can do it now
    │   ├── WorkerLost    a worker went away in the middle of a call
    │   └── WorkerBusy    a worker's own queue is full
    ├── TooLate           the deadline passed
    ├── WorkerFault       a worker answered, wrongly
    └── SetupError        the service cannot start as configured

All but `SetupError` reach a client, with their text; `service/rpc/status.py` maps each to its status. Anything
else that is raised is unexpected: logged with its traceback, answered as INTERNAL with a request id.
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
    """The service expected this. The message says what to do.

    Attributes:
        reason: an UPPER_SNAKE word for programs.
    """

    reason = "UNSPECIFIED"


class InvalidRequest(FountServiceError):
    """Fields of the request are wrong. Mend each one named."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in violations))


class UnknownName(InvalidRequest):
    """A name in the request is not known, and nothing else is wrong. Ask ListModels what is."""

    reason = "UNKNOWN_NAME"


class TicketInvalid(InvalidRequest):
    """A ticket is not one of ours, was changed, or has expired. Plan again, and pull by the new ticket."""

    reason = "TICKET_INVALID"

    def __init__(self, message: str) -> None:
        super().__init__((Violation(field="ticket", description=message),))


class NotPermitted(FountServiceError):
    """The caller lacks a grant. Ask whoever runs the service for it."""

    reason = "NOT_PERMITTED"


class Retired(FountServiceError):
    """A pinned digest, numerics or operation is not served. Drop the pin, or ask for what GetModel lists."""

    reason = "RETIRED"


class PlanRefused(FountServiceError):
    """A plan would change labels, or needs what is not served. Change what the message names."""

    reason = "PLAN_REFUSED"


class DatasetUnreadable(FountServiceError):
    """The files of a data set are absent or damaged. Mend the file and row the message names, and ask again."""

    reason = "DATASET_UNREADABLE"


class UnknownEvaluation(FountServiceError):
    """An evaluation is unknown, expired, deleted, or someone else's. Ask ListEvaluations which there are."""

    reason = "UNKNOWN_EVALUATION"


class EvaluationRefused(FountServiceError):
    """A reference and a model do not fit, or evaluations are off. Change what the message names."""

    reason = "EVALUATION_REFUSED"


class EvaluationNotDone(FountServiceError):
    """A report is asked for before there is one. Watch the evaluation until it has succeeded."""

    reason = "EVALUATION_NOT_DONE"


class JobsUnreachable(FountServiceError):
    """The database of evaluations does not answer. Try again; the log says why."""

    reason = "JOBS_UNREACHABLE"


class Overloaded(FountServiceError):
    """A queue or a quota is full. Try again after `retry_after_s`."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class NotReady(FountServiceError):
    """No worker can do it now. Try again; GetModel tells the model's state."""

    reason = "NOT_READY"


class WorkerLost(NotReady):
    """A worker went away in the middle of a call. It is repeated elsewhere, safely: addresses give the same bytes.

    Attributes:
        died: True when the worker's own process is known to have died of it, or under it.
    """

    reason = "WORKER_LOST"

    def __init__(self, message: str, *, died: bool = False) -> None:
        self.died = died
        super().__init__(message)


class WorkerBusy(NotReady):
    """A worker's own queue is full, with other gateways' calls. Put back, and sent again in a moment."""

    reason = "WORKER_BUSY"


class TooLate(FountServiceError):
    """The deadline passed. Ask with more time, or for fewer samples."""

    reason = "DEADLINE_PASSED"


class WorkerFault(FountServiceError):
    """A worker answered, wrongly. Not to be repeated; report it with the request id."""

    reason = "WORKER_FAULT"


class SetupError(FountServiceError):
    """The service cannot start as configured. The message names the setting and the remedy."""

    reason = "SETUP"
