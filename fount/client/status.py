"""Map gRPC statuses to the client's errors: one table, with an entry for every status.

Details are those of `google.rpc`: BadRequest names fields, RetryInfo a delay, RequestInfo or ErrorInfo a request id.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fount.client.channel import proxy_note
from fount.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    FountError,
    InternalError,
    InvalidRequest,
    Loading,
    NoServer,
    NotAllowed,
    NotFound,
    Overloaded,
    ServerUnavailable,
    UnknownCall,
)

__all__ = ["ERRORS", "error_of"]


_LOADING = "LOADING"
"""The reason of a server whose workers are loading."""

_BROKEN_STREAM = "Internal error from Core"
"""The message of grpc.aio, with status INTERNAL, when a stream broke while it was opened or written."""


_GRPC_PORT = "name the gateway's gRPC port, by default 50051"
_CAUSES = (
    (r"http1\.x server", f"{{server}} is an HTTP port, which does not speak gRPC: {_GRPC_PORT}."),
    (r"Expected SETTINGS frame", f"What answers at {{server}} does not speak gRPC: {_GRPC_PORT}."),
    (r"before receiving SETTINGS", f"What listens at {{server}} accepts connections and never answers: {_GRPC_PORT}."),
    (r"WRONG_VERSION_NUMBER", "{server} does not speak TLS: connect without credentials."),
    (r"CERTIFICATE_VERIFY_FAILED", "The certificate of {server} is not trusted: pass the certificate that signed it as "
                                   "credentials=grpc.ssl_channel_credentials(root_certificates)."),
    (r"Hostname Verification", "The certificate of {server} is of another host: connect by the name that it contains."),
    (r"failed to connect.*(Socket closed|reset by peer)", "{server} closes every connection unanswered: it may demand "
                                                         f"TLS, which needs credentials; or {_GRPC_PORT}."),
    (r"errors resolving", "The name of the host in {server} cannot be resolved: correct it, or write its IP address."),
)  # fmt: skip
"""Patterns of gRPC's text about a connection that failed, and the sentence for each; the first that matches."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """The message of a failed call and the details that the server attached."""

    server: str
    message: str
    reason: str = ""
    request_id: str = ""
    retry_after_s: float | None = None
    fields: tuple[tuple[str, str], ...] = ()


def _unavailable(failure: _Failure) -> FountError:
    if failure.reason == _LOADING:
        return Loading(failure.message, retry_after_s=failure.retry_after_s)
    if failure.reason:  # reported by a Fount server, which is therefore there
        return ServerUnavailable(failure.message, retry_after_s=failure.retry_after_s)
    return _no_server(failure)


def _no_server(failure: _Failure) -> NoServer:
    """Return the error of a call that no Fount server answered, with the cause where gRPC's text reveals it."""
    note = proxy_note(failure.server)
    for pattern, sentence in () if note else _CAUSES:  # a proxy makes connections of its own
        if re.search(pattern, failure.message):
            return NoServer(sentence.format(server=failure.server))
    return NoServer.at(failure.server, note)


def _internal(failure: _Failure) -> FountError:
    if not failure.reason and failure.message.startswith(_BROKEN_STREAM):
        return _no_server(failure)
    return InternalError(failure.message, request_id=failure.request_id)


ERRORS: dict[grpc.StatusCode, Callable[[_Failure], FountError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: lambda failure: InvalidRequest(failure.message, fields=failure.fields),
    grpc.StatusCode.OUT_OF_RANGE: lambda failure: InvalidRequest(failure.message, fields=failure.fields),
    grpc.StatusCode.NOT_FOUND: lambda failure: NotFound(failure.message),
    grpc.StatusCode.RESOURCE_EXHAUSTED: lambda failure: Overloaded(
        failure.message, retry_after_s=failure.retry_after_s
    ),
    grpc.StatusCode.FAILED_PRECONDITION: lambda failure: FailedPrecondition(failure.message),
    grpc.StatusCode.UNIMPLEMENTED: lambda failure: UnknownCall(
        f"The server at {failure.server} does not know this call: {failure.message}"
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: lambda failure: DeadlineExceeded(
        f"{failure.message}. Request fewer samples, or allow more time with timeout_s (--timeout)."
    ),
    grpc.StatusCode.UNAVAILABLE: _unavailable,
    grpc.StatusCode.PERMISSION_DENIED: lambda failure: NotAllowed(failure.message),
    grpc.StatusCode.UNAUTHENTICATED: lambda failure: NotAllowed(failure.message),
    grpc.StatusCode.CANCELLED: lambda failure: Cancelled(failure.message),
    grpc.StatusCode.ABORTED: _internal,
    grpc.StatusCode.ALREADY_EXISTS: _internal,
    grpc.StatusCode.DATA_LOSS: _internal,
    grpc.StatusCode.INTERNAL: _internal,
    grpc.StatusCode.UNKNOWN: _internal,
}


def error_of(error: Any, server: str) -> FountError:
    """Return the client's error for a failed call, synchronous or asyncio, with gRPC's error as its cause."""
    made = ERRORS[error.code()](_read(error, server))
    made.__cause__ = error
    return made


def _read(error: Any, server: str) -> _Failure:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: not sent by a Fount server
        status = None
    details = {} if status is None else {detail.TypeName(): detail for detail in status.details}
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    bad, request = error_details_pb2.BadRequest(), error_details_pb2.RequestInfo()
    for message_type in (info, retry, bad, request):
        if (detail := details.get(message_type.DESCRIPTOR.full_name)) is not None:
            detail.Unpack(message_type)
    return _Failure(
        server=server,
        message=error.details() or error.code().name,
        reason=info.reason,
        request_id=request.request_id or info.metadata.get("request_id", ""),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        fields=tuple((field.field, field.description) for field in bad.field_violations),
    )
