"""gRPC statuses as errors of the client, each with its remedy."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from fount import errors
from fount.client.status import ERRORS, error_of
from fount.errors import InvalidRequest, MissingExtra

NO_SERVER = "No Fount server answers at here:1. Start one with `fount serve`, or name another with --server."


class EndedCall(grpc.RpcError):
    def __init__(self, code, details="text", metadata=()):
        self._ended = code, details, metadata

    def code(self):
        return self._ended[0]

    def details(self):
        return self._ended[1]

    def trailing_metadata(self):
        return self._ended[2]


def ended(code, *details):
    packed = [Any() for _ in details]
    for target, detail in zip(packed, details, strict=True):
        target.Pack(detail)
    status = rpc_status.to_status(status_pb2.Status(code=code.value[0], message="text", details=packed))
    return EndedCall(code, "text", status.trailing_metadata)


def test_it_has_an_error_for_every_status_but_ok():
    assert ERRORS.keys() == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", errors.InvalidRequest),
        ("OUT_OF_RANGE", errors.InvalidRequest),
        ("NOT_FOUND", errors.NotFound),
        ("RESOURCE_EXHAUSTED", errors.Overloaded),
        ("FAILED_PRECONDITION", errors.FailedPrecondition),
        ("UNIMPLEMENTED", errors.UnknownCall),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("UNAVAILABLE", errors.NoServer),
        ("PERMISSION_DENIED", errors.NotAllowed),
        ("UNAUTHENTICATED", errors.NotAllowed),
        ("CANCELLED", errors.Cancelled),
        ("ABORTED", errors.InternalError),
        ("ALREADY_EXISTS", errors.InternalError),
        ("DATA_LOSS", errors.InternalError),
        ("INTERNAL", errors.InternalError),
        ("UNKNOWN", errors.InternalError),
    ],
)
def test_it_maps_a_status_to_its_error(code, kind):
    call = EndedCall(grpc.StatusCode[code])
    error = error_of(call, "here:1")
    assert type(error) is kind
    assert error.__cause__ is call


def test_it_reports_how_to_start_a_server_when_none_answers():
    assert str(error_of(EndedCall(grpc.StatusCode.UNAVAILABLE, "connection refused"), "here:1")) == NO_SERVER


def test_it_quotes_a_server_that_is_not_ready():
    info = error_details_pb2.ErrorInfo(reason="NOT_READY", domain="fount")
    error = error_of(ended(grpc.StatusCode.UNAVAILABLE, info), "here:1")
    assert (type(error), str(error)) == (errors.ServerUnavailable, "text")


def test_it_distinguishes_a_model_that_loads():
    info = error_details_pb2.ErrorInfo(reason="LOADING", domain="fount")
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 1})
    error = error_of(ended(grpc.StatusCode.UNAVAILABLE, info, retry), "here:1")
    assert (type(error), str(error), error.retry_after_s) == (errors.Loading, "text", 1.0)


def test_it_lists_every_wrong_field():
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="count", description="is 0")
    bad.field_violations.add(field="seed", description="is odd")
    error = error_of(ended(grpc.StatusCode.INVALID_ARGUMENT, bad), "here:1")
    assert isinstance(error, InvalidRequest)
    assert error.fields == [("count", "is 0"), ("seed", "is odd")]
    assert str(error) == "text\n  count: is 0\n  seed: is odd"


def test_it_reads_a_retry_delay_in_seconds():
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 1, "nanos": 500_000_000})
    assert error_of(ended(grpc.StatusCode.RESOURCE_EXHAUSTED, retry), "here:1").retry_after_s == 1.5


@pytest.mark.parametrize(
    "detail",
    [
        error_details_pb2.ErrorInfo(reason="INTERNAL", metadata={"request_id": "r-1"}),
        error_details_pb2.RequestInfo(request_id="r-1"),
    ],
    ids=["ErrorInfo", "RequestInfo"],
)
def test_it_names_the_request_id_of_a_server_fault(detail):
    error = error_of(ended(grpc.StatusCode.INTERNAL, detail), "here:1")
    assert (error.request_id, str(error)) == ("r-1", "text (request id r-1)")


def test_it_names_the_extra_to_install():
    assert str(MissingExtra.of(command="serve", extra="serve", missing="aiohttp")) == (
        "`fount serve` needs the extra `serve`: pip install 'fount[serve]' (missing: aiohttp)"
    )


def test_it_lists_every_error_in_the_tree():
    kinds = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]
    assert [name for name in kinds if name not in (errors.__doc__ or "")] == []


def test_it_does_not_repeat_a_field_that_the_message_names():
    assert str(InvalidRequest("count: is 0", fields=[("count", "is 0")])) == "count: is 0"


def test_it_reports_how_much_of_a_broken_stream_was_received():
    error = errors.NoServer.at("localhost:1").after(158_720, 1_000_000, 158_720)
    assert str(error).startswith("The stream broke after 158,720 of 1,000,000 samples; index 158720 was next. No Fount")


def test_it_reports_a_stream_that_broke_within_grpc_as_unavailable():
    error = error_of(EndedCall(grpc.StatusCode.INTERNAL, "Internal error from Core"), "here:1")
    assert isinstance(error, errors.ServerUnavailable)
    assert str(error) == NO_SERVER


CONNECTING = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{CONNECTING}connection attempt timed out before receiving SETTINGS frame",
            "What listens at here:1 accepts connections and never answers: "
            "name the gateway's gRPC port, by default 50051.",
        ),
        (
            f"{CONNECTING}Tls handshake failed (TSI_PROTOCOL_FAILURE): WRONG_VERSION_NUMBER",
            "here:1 does not speak TLS: connect without credentials.",
        ),
        (
            f"{CONNECTING}Tls handshake failed (TSI_PROTOCOL_FAILURE): CERTIFICATE_VERIFY_FAILED: self signed",
            "The certificate of here:1 is not trusted: pass the certificate that signed it as "
            "credentials=grpc.ssl_channel_credentials(root_certificates).",
        ),
        (
            f"{CONNECTING}Custom verification check failed with error: Hostname Verification Check failed.",
            "The certificate of here:1 is of another host: connect by the name that it contains.",
        ),
        (
            "errors resolving here:1: [field:hostname lookup error:address lookup failed: Domain name not found]",
            "The name of the host in here:1 cannot be resolved: correct it, or write its IP address.",
        ),
        ("Socket closed", NO_SERVER),
    ],
    ids=["silent", "no TLS", "untrusted", "other host", "unknown host", "lost connection"],
)
def test_it_names_why_no_server_answers(text, message):
    assert str(error_of(EndedCall(grpc.StatusCode.UNAVAILABLE, text), "here:1")) == message
