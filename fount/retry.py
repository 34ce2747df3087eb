"""One question to a server over as many attempts as it takes: what to send, how long to wait, when to give up.

No I/O happens here: `fount.client.sync` and `fount.client.aio` move the bytes and sleep as long as they are told to,
so that both
behave the same. Only what cannot have taken effect twice is tried again:

    UNAVAILABLE                    a few times; after progress more patiently, resuming where the stream broke
    RESOURCE_EXHAUSTED, RetryInfo  after the delay it names, while time is left
    anything else                  never
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from fount.errors import DeadlineExceeded, FountError, InvalidRequest, Overloaded, ServerUnavailable
from fount.sampling.request import SampleQuery, sample_request
from fount.sampling.stream import StreamProgress
from fount.sampling.types import Chunk
from fount.v1 import sampling_pb2

__all__ = ["CHANNEL_OPTIONS", "DEFAULT_SERVER", "Patience", "RetryPolicy", "SampleExchange", "default_server"]

DEFAULT_SERVER = "127.0.0.1:50051"
"""Where `fount serve` listens unless told otherwise."""

_MAX_MESSAGE_BYTES = 64 * 2**20
_FEW = 64  # samples up to which one message is likely to hold them

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # retries are made here, where it is known what may be asked again
)
"""What every channel to a gateway is opened with."""


def default_server() -> str:
    """The address in the environment variable FOUNT_SERVER, or `DEFAULT_SERVER`."""
    return os.environ.get("FOUNT_SERVER") or DEFAULT_SERVER


def _draw_jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries in time; no sample depends on it


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How patiently a server that does not answer is tried again.

    Attributes:
        first_attempts: attempts before anything came, few so that a server that is not there is named soon.
        attempts: attempts since something came, enough for a server to be restarted.
        base_s: delay before the second attempt; it doubles with each further one.
        cap_s: the longest delay.
        jitter: draws the factor, 0 to 1, that a delay is multiplied by.
    """

    first_attempts: int = 3
    attempts: int = 12
    base_s: float = 0.1
    cap_s: float = 5.0
    jitter: Callable[[], float] = _draw_jitter

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more."""
        return min(self.cap_s, self.base_s * 2.0 ** (failures - 1)) * self.jitter()


class Patience:
    """The time and the attempts left to one question."""

    def __init__(
        self,
        timeout_s: float | None,
        policy: RetryPolicy,
        *,
        between_messages: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the time.

        Args:
            timeout_s: seconds, above 0; None is no limit.
            policy: when to try again.
            between_messages: whether the time is for the whole question, or from one message of a stream to the next.
            clock: seconds on a clock that only goes forward.

        Raises:
            InvalidRequest: the timeout is not above 0.
        """
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequest("The request cannot be sent:", fields=[("timeout_s", f"is {timeout_s}, not above 0")])
        self._timeout_s, self._policy, self._clock = timeout_s, policy, clock
        self._between_messages = between_messages
        self._failures, self._progressed = 0, False
        self._ends_s = self._end_from_now()

    def touch(self) -> None:
        """Take note that a message came and was dealt with: the time to the next counts from now on."""
        if self._between_messages:
            self._ends_s = self._end_from_now()

    def take_progress(self) -> None:
        """Take note that samples came, so that failures are counted afresh."""
        self._failures, self._progressed = 0, True

    def call_timeout_s(self) -> float | None:
        """Seconds left to the whole call; None when only the time between messages counts, or nothing does.

        Raises:
            DeadlineExceeded: none is left.
        """
        return None if self._between_messages else self._remaining_s()

    def message_timeout_s(self) -> float | None:
        """Seconds left until the next message; None when the time of the whole call counts, or nothing does.

        Raises:
            DeadlineExceeded: none is left.
        """
        return self._remaining_s() if self._between_messages else None

    def expired(self) -> DeadlineExceeded:
        """The error that says the time is over."""
        return DeadlineExceeded.after(self._timeout_s or 0.0)

    def _end_from_now(self) -> float | None:
        return None if self._timeout_s is None else self._clock() + self._timeout_s

    def _remaining_s(self) -> float | None:
        if self._ends_s is None:
            return None
        remaining_s = self._ends_s - self._clock()
        if remaining_s <= 0:
            raise self.expired()
        return remaining_s

    def delay_s(self, error: FountError) -> float:
        """Seconds to wait before asking again.

        Raises:
            FountError: the error itself, when asking again is not safe, or there is no attempt or time left.
        """
        if isinstance(error, DeadlineExceeded) and self._ends_s is not None and self._clock() >= self._ends_s:
            raise self.expired() from error
        self._failures += 1
        asked_s = error.retry_after_s if isinstance(error, Overloaded | ServerUnavailable) else None
        limit = self._policy.attempts if self._progressed else self._policy.first_attempts
        tired = isinstance(error, ServerUnavailable) and self._failures >= limit
        hopeless = isinstance(error, Overloaded) and asked_s is None
        if not isinstance(error, Overloaded | ServerUnavailable) or tired or hopeless:
            raise error
        delay_s = max(asked_s or 0.0, self._policy.delay_s(self._failures))
        if self._ends_s is not None and self._clock() + delay_s >= self._ends_s:
            raise error
        return delay_s

    def resume_delay_s(self, error: FountError, *, received: int, count: int, next_index: int) -> float:
        """Seconds to wait before asking for the rest of a stream that broke.

        Raises:
            FountError: the error itself, when it is final, saying how far the stream came.
        """
        try:
            return self.delay_s(error)
        except ServerUnavailable as final:
            raise final.after(received, count, next_index) from error


class SampleExchange:
    """A `Sample` call without its I/O.

    Attributes:
        patience: the time and attempts left.
        count: how many samples were asked for.
    """

    def __init__(self, model: str, query: SampleQuery, patience: Patience) -> None:
        request = sample_request(model, query)
        self.patience, self.count, self._first_index = patience, request.count, request.start_index
        self._progress = StreamProgress(request)

    def begin(self) -> sampling_pb2.SampleRequest:
        """The request to send now: all of it at first, the rest after a break."""
        return self._progress.begin()

    def receive(self, response: sampling_pb2.SampleResponse) -> Chunk | None:
        """Take one message in, and give the chunk it completes.

        Raises:
            BadReply: it contradicts the request, or what came before.
        """
        chunk = self._progress.receive(response)
        if chunk is not None:
            self.patience.take_progress()
        return chunk

    @property
    def is_few(self) -> bool:
        """Whether SampleOnce is likely to answer all of it."""
        return self.count <= _FEW

    @property
    def is_complete(self) -> bool:
        """Whether every sample came."""
        return self._progress.is_complete

    def begin_once(self) -> sampling_pb2.SampleOnceRequest:
        """The request of a SampleOnce call."""
        return sampling_pb2.SampleOnceRequest(request=self.begin())

    def receive_once(self, response: sampling_pb2.SampleOnceResponse) -> list[Chunk]:
        """Take the answer of a SampleOnce call in; what it did not hold, a stream goes on with.

        Raises:
            BadReply: it contradicts the request.
        """
        self.receive(sampling_pb2.SampleResponse(header=response.header))
        if not response.chunk.count:
            return []
        chunk = self.receive(sampling_pb2.SampleResponse(chunk=response.chunk))
        return [] if chunk is None else [chunk]

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: samples are missing.
        """
        self._progress.finish()

    def recover(self, error: FountError) -> float | None:
        """Decide what a broken stream means.

        Returns:
            Seconds to wait before `begin`, or None when every sample had come before it broke.

        Raises:
            FountError: the error itself, when it is final.
        """
        if self._progress.is_complete:
            return None
        next_index = self._progress.next_index
        received = next_index - self._first_index
        return self.patience.resume_delay_s(error, received=received, count=self.count, next_index=next_index)
