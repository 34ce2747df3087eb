"""What can go wrong for a client, by what its caller can do about it.

    FountError
    ├── ServerUnavailable      nobody answers, or the model has no ready worker
    ├── Overloaded             queue, budget or quota is full
    ├── DeadlineExceeded       the time allowed ran out
    ├── InvalidRequest         a field is wrong
    ├── NotFound               a name is unknown
    ├── FailedPrecondition     the model cannot do it, or what was pinned is gone
    ├── NotAllowed             the caller may not
    ├── Cancelled              the server gave the call up
    ├── InternalError          a fault of the server's own
    │   └── BadReply           the server contradicts itself
    ├── SampleFailed           samples of a reply carry errors
    ├── OutputError            a result cannot be written
    └── MissingExtra           a command needs a part that is not installed

`fount.client.status` makes them from gRPC statuses; nothing here knows gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BadReply",
    "Cancelled",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FountError",
    "InternalError",
    "InvalidRequest",
    "MissingExtra",
    "NotAllowed",
    "NotFound",
    "OutputError",
    "Overloaded",
    "SampleFailed",
    "ServerUnavailable",
]

_NAMED_FAILURES = 10


class FountError(Exception):
    """Anything Fount's client expects to go wrong. Its text is one a person can act on."""


class ServerUnavailable(FountError):
    """Nobody answers at the address, or the model has no ready worker. Start the server, or ask again later.

    Attributes:
        retry_after_s: seconds after which the server asks to be tried again; None when it named none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @classmethod
    def nobody_at(cls, server: str) -> ServerUnavailable:
        """Say that no server runs, and how to start one."""
        return cls(f"No Fount server answers at {server}. Start one with `fount serve`, or name another with --server.")

    def after(self, received: int, count: int, next_index: int) -> ServerUnavailable:
        """The same, saying how far a stream came and where it can go on; itself when nothing came."""
        if not received:
            return self
        where = f"The stream broke after {received:,} of {count:,} samples; index {next_index} was next."
        return ServerUnavailable(f"{where} {self}", retry_after_s=self.retry_after_s)


class Overloaded(FountError):
    """A queue, a budget or a quota is full. Wait as long as the server says, then ask again.

    Attributes:
        retry_after_s: seconds after which the server expects room; None when it named none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(FountError):
    """The time allowed ran out. Ask for fewer samples, or allow more time."""

    @classmethod
    def after(cls, timeout_s: float) -> DeadlineExceeded:
        """Say how long was waited."""
        return cls(
            f"No answer within {timeout_s:g} s. Ask for fewer samples, or allow more time with timeout_s (--timeout)."
        )


class InvalidRequest(FountError):
    """A field of the request is wrong. Correct every field listed.

    Attributes:
        fields: (field, what is wrong with it), one a bad field; empty when the server named none.
    """

    def __init__(self, message: str, *, fields: Sequence[tuple[str, str]] = ()) -> None:
        lines = [f"{field}: {text}" for field, text in fields]
        super().__init__("\n".join([message, *(f"  {line}" for line in lines if line not in message)]))
        self.fields = list(fields)


class NotFound(FountError):
    """A model, version or label is unknown. `Client.models()` (`fount models`) lists what is served."""


class FailedPrecondition(FountError):
    """The model lacks the operation, or the pinned digest or numerics is retired. Pin another, or none."""


class NotAllowed(FountError):
    """The caller may not do this. Ask whoever runs the server for the grant."""


class Cancelled(FountError):
    """The server, or something before it, gave the call up. Ask again."""


class InternalError(FountError):
    """A fault of the server's own. Its log has the traceback under the request id.

    Attributes:
        request_id: what to search the server's log for; empty when it named none.
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(f"{message} (request id {request_id})" if request_id else message)
        self.request_id = request_id


class BadReply(InternalError):
    """The server's reply contradicts itself or the request, so none of it can be trusted. Tell whoever runs it."""


class SampleFailed(FountError):
    """Some samples of a reply carry errors instead of values. `Client.stream` gives the others.

    Attributes:
        failures: (index, what went wrong), one a failed sample.
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
    """A result cannot be written where it was asked for. Name another place, or make room."""


class MissingExtra(FountError):
    """A command needs a part of Fount that is not installed. Install the extra it names."""

    @classmethod
    def of(cls, *, command: str, extra: str, missing: str) -> MissingExtra:
        """Say which extra to install."""
        return cls(f"`fount {command}` needs the extra `{extra}`: pip install 'fount[{extra}]' (missing: {missing})")
