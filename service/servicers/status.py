"""One table from error class to gRPC status, and the details each carries."""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.errors import (
    FountServiceError,
    InvalidRequest,
    NotPermitted,
    NotReady,
    Overloaded,
    Retired,
    SetupError,
    TooLate,
    UnknownName,
    WorkerFault,
    WorkerLost,
)

__all__ = ["CODES", "error_to_status", "unexpected_status"]

CODES: dict[type[FountServiceError], int] = {
    InvalidRequest: code_pb2.INVALID_ARGUMENT,
    UnknownName: code_pb2.NOT_FOUND,
    NotPermitted: code_pb2.PERMISSION_DENIED,
    Retired: code_pb2.FAILED_PRECONDITION,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    NotReady: code_pb2.UNAVAILABLE,
    WorkerLost: code_pb2.UNAVAILABLE,
    TooLate: code_pb2.DEADLINE_EXCEEDED,
    WorkerFault: code_pb2.INTERNAL,
    SetupError: code_pb2.INTERNAL,
}
"""The google.rpc code of every expected error; a test proves that none is missing."""

_DOMAIN = "fount"


def error_to_status(error: FountServiceError, request_id: str) -> status_pb2.Status:
    """The status an expected error is answered with."""
    details: list[Message] = [_error_info(error.reason, request_id)]
    if isinstance(error, InvalidRequest | UnknownName):
        bad = error_details_pb2.BadRequest()
        for each in error.violations:
            bad.field_violations.add(field=each.field, description=each.description)
        details.append(bad)
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _status(CODES[type(error)], str(error), details)


def unexpected_status(request_id: str) -> status_pb2.Status:
    """The status of an error nobody expected; its traceback is in the log under the id."""
    message = f"something went wrong here; the log has it under request id {request_id}"
    return _status(code_pb2.INTERNAL, message, [_error_info("UNEXPECTED", request_id)])


def _error_info(reason: str, request_id: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN, metadata={"request_id": request_id})


def _status(code: int, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message[:2000])
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
