"""The errors of the client, one class for each remedy.

    FountError
    ├── ServerUnavailable      the server is stopping, or the model has no ready worker
    │   ├── NoServer           no Fount server answers at the address
    │   └── Loading            the workers of the model are loading
    ├── Overloaded             queue, budget or quota is full
    ├── DeadlineExceeded       the timeout expired
    ├── InvalidRequest         a field is wrong
    ├── NotFound               a name is unknown
    ├── FailedPrecondition     the model cannot do it, or what was pinned is gone
    │   └── UnknownCall        the server is older than the client
    ├── NotAllowed             the caller lacks a grant
    ├── Cancelled              the server or a proxy cancelled the call
    ├── InternalError          a fault of the server
    │   └── BadReply           the reply contradicts the request or itself
    ├── SampleFailed           samples of a reply carry errors
    ├── OutputError            a result cannot be written
    └── MissingExtra           a command needs an extra that is not installed

`fount.client.status` maps gRPC statuses to them; this module does not import gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "BadReply", "Cancelled", "DeadlineExceeded", "FailedPrecondition", "FountError", "InternalError",
    "InvalidRequest", "Loading", "MissingExtra", "NoServer", "NotAllowed", "NotFound", "OutputError", "Overloaded",
    "SampleFailed", "ServerUnavailable", "UnknownCall", "output_errors",
]  # fmt: skip

_NAMED_FAILURES = 10


class FountError(Exception):
    """The base of every error that the client expects. Its message says what to do."""


class _Temporary(FountError):
    """An error that ends by itself; `retry_after_s` is how long to wait, None when the server does not say."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerUnavailable(_Temporary):
    """No server answers at the address, or the model has no ready worker. Start the server, or try again later."""

    def after(self, received: int, count: int, next_index: int) -> ServerUnavailable:
        """Return the error with how much of a stream was received, and where it can be resumed."""
        where = f"The stream broke after {received:,} of {count:,} samples; index {next_index} was next."
        return ServerUnavailable(f"{where} {self}", retry_after_s=self.retry_after_s)


class NoServer(ServerUnavailable):
    """No Fount server answers at the address. Correct the address, or start the server."""

    @classmethod
    def at(cls, server: str, note: str = "") -> NoServer:
        """Report that no server answers, and how to start one; `note` is appended to the address."""
        where = f"{server}{note}"
        return cls(f"No Fount server answers at {where}. Start one with `fount serve`, or name another with --server.")

    @classmethod
    def within(cls, timeout_s: float, server: str, note: str = "") -> NoServer:
        """Report that no connection was made in time."""
        return cls(
            f"No Fount server answers at {server}{note}: no connection was made within {timeout_s:g} s. Check the host "
            "and the port, and that no firewall is between, or name another with --server."
        )


class Loading(ServerUnavailable):
    """The workers of the model are loading. The client waits for them until its timeout; allow more time."""

    def still_after(self, timeout_s: float) -> Loading:
        """Return the error of a call whose time is over."""
        text = f"{self}. That did not change within {timeout_s:g} s; wait longer with timeout_s (--timeout)."
        return Loading(text, retry_after_s=self.retry_after_s)


class Overloaded(_Temporary):
    """A queue, a budget or a quota is full. Wait as long as the server says, then try again."""


class DeadlineExceeded(FountError):
    """The timeout expired. Request fewer samples, or allow more time."""

    @classmethod
    def after(cls, timeout_s: float) -> DeadlineExceeded:
        """Report the timeout."""
        return cls(
            f"No answer within {timeout_s:g} s. Request fewer samples, or allow more time with timeout_s (--timeout)."
        )


class InvalidRequest(FountError):
    """A field of the request is wrong. Correct all of `fields`, pairs of a name and what is wrong with it."""

    def __init__(self, message: str, *, fields: Sequence[tuple[str, str]] = ()) -> None:
        lines = [f"{field}: {text}" for field, text in fields]
        super().__init__("\n".join([message, *(f"  {line}" for line in lines if line not in message)]))
        self.fields = list(fields)


class NotFound(FountError):
    """A model, version or label is unknown. `Client.models()` (`fount models`) lists what is served."""


class FailedPrecondition(FountError):
    """The model lacks the operation, or the pinned digest or numerics is retired. Pin another, or none."""


class UnknownCall(FailedPrecondition):
    """The server does not know the call. Update the server."""


class NotAllowed(FountError):
    """The caller lacks a grant. Ask the operator of the server for it."""


class Cancelled(FountError):
    """The server, a proxy or the client itself cancelled the call. Try again."""


class InternalError(FountError):
    """A fault of the server. Its log has the traceback under `request_id`, which may be empty."""

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(f"{message} (request id {request_id})" if request_id else message)
        self.request_id = request_id


class BadReply(InternalError):
    """The reply contradicts the request or itself, and is not used. Report it to the operator of the server."""


class SampleFailed(FountError):
    """Some samples of a reply are errors instead of values. `Client.stream` returns the others.

    `failures` holds the index of each failed sample, and what went wrong.
    """

    def __init__(self, failures: Sequence[tuple[int, str]]) -> None:
        named = [f"  sample {index}: {text}" for index, text in failures[:_NAMED_FAILURES]]
        if len(failures) > _NAMED_FAILURES:
            named.append(f"  and {len(failures) - _NAMED_FAILURES} more")
        super().__init__("\n".join([f"{len(failures)} samples failed:", *named]))
        self.failures = list(failures)

    @property
    def indices(self) -> list[int]:
        """The indices of the samples that failed."""
        return [index for index, _ in self.failures]


class OutputError(FountError):
    """A result cannot be written. Name another path, or free disk space."""


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise an `OSError` within the block as an `OutputError` that names the path."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


class MissingExtra(FountError):
    """A command needs an extra that is not installed. Install the one it names."""

    @classmethod
    def of(cls, *, command: str, extra: str, missing: str) -> MissingExtra:
        """Report which extra to install."""
        return cls(f"`fount {command}` needs the extra `{extra}`: pip install 'fount[{extra}]' (missing: {missing})")
