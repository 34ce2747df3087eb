"""Write errors as google.rpc statuses: one table from error class to code, and the details each carries."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service import errors
from service.calls import Failure
from service.errors import FountServiceError, InvalidRequest, JobsUnreachable, Loading, NotLoaded, Overloaded, Violation

__all__ = ["CODES", "error_to_status", "failure_to_status", "unexpected_status"]

CODES: dict[type[FountServiceError], int] = {
    errors.InvalidRequest: code_pb2.INVALID_ARGUMENT,
    errors.UnknownName: code_pb2.NOT_FOUND,
    errors.TicketInvalid: code_pb2.INVALID_ARGUMENT,
    errors.NotPermitted: code_pb2.PERMISSION_DENIED,
    errors.Retired: code_pb2.FAILED_PRECONDITION,
    errors.PlanRefused: code_pb2.FAILED_PRECONDITION,
    errors.DatasetUnreadable: code_pb2.FAILED_PRECONDITION,
    errors.UnknownEvaluation: code_pb2.NOT_FOUND,
    errors.EvaluationRefused: code_pb2.FAILED_PRECONDITION,
    errors.EvaluationNotDone: code_pb2.FAILED_PRECONDITION,
    errors.JobsUnreachable: code_pb2.UNAVAILABLE,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.NotReady: code_pb2.UNAVAILABLE,
    errors.NotLoaded: code_pb2.UNAVAILABLE,
    errors.Loading: code_pb2.UNAVAILABLE,
    errors.WorkerBusy: code_pb2.UNAVAILABLE,
    errors.WorkerLost: code_pb2.UNAVAILABLE,
    errors.TooLate: code_pb2.DEADLINE_EXCEEDED,
    errors.WorkerFault: code_pb2.INTERNAL,
    errors.SetupError: code_pb2.INTERNAL,
}
"""The google.rpc code of every expected error; a test proves that none is missing."""

_DOMAIN = "fount"
_MESSAGE_BYTES, _DETAIL_BYTES = 1000, 3000  # trailers above 8 KiB may be refused on the way


def error_to_status(error: FountServiceError, request_id: str) -> status_pb2.Status:
    """Write the status of an expected error."""
    details: list[Message] = [_error_info(error.reason, request_id=request_id)]
    if isinstance(error, InvalidRequest):
        details.append(_bad_request(error.violations))
    if isinstance(error, Overloaded | NotLoaded | Loading):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    text = str(error)
    if isinstance(error, JobsUnreachable):  # it names hosts, sockets and users of the database
        text = (
            f"the database of evaluations does not answer; try again; the log has the reason, request id {request_id}"
        )
    return _status(CODES[type(error)], _shorten(text, _MESSAGE_BYTES), details)


def unexpected_status(request_id: str) -> status_pb2.Status:
    """Write the status of an unexpected error, whose traceback is in the log under the id."""
    message = f"the gateway failed unexpectedly; its log has the reason under request id {request_id}"
    return _status(code_pb2.INTERNAL, message, [_error_info("UNEXPECTED", request_id=request_id)])


def failure_to_status(failure: Failure) -> status_pb2.Status:
    """Write the status of a sample that has no value."""
    return _status(failure.code, failure.message, [_error_info(failure.reason)])


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest:
    """Write violations as far as they fit into trailers, which gRPC limits; the last entry counts the others."""
    bad, remaining = error_details_pb2.BadRequest(), _DETAIL_BYTES
    for number, each in enumerate(violations):
        remaining -= len(each.field.encode()) + len(each.description.encode())
        if remaining < 0 and number:
            bad.field_violations.add(field="", description=f"and {len(violations) - number} more fields are wrong")
            break
        bad.field_violations.add(field=each.field, description=_shorten(each.description, _MESSAGE_BYTES))
    return bad


def _shorten(text: str, most_bytes: int) -> str:
    """Cut a text to so many bytes as gRPC sends it: percent-encoded, with three bytes for each that is not ASCII."""
    size = 0
    for number, character in enumerate(text):
        size += 1 if character.isascii() and character.isprintable() else 3 * len(character.encode())
        if size > most_bytes:
            return text[:number] + " …"
    return text


def _error_info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN, metadata=metadata)


def _status(code: int, message: str, details: Sequence[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
