"""When the client repeats a call: the retry policy, and the attempts and time left to one call.

No I/O happens here: `fount.client.calls` sends and waits. Only calls that cannot have taken effect twice are repeated:

    UNAVAILABLE                    a few times; more often once data arrived, resuming where the stream broke
    UNAVAILABLE, LOADING           every second while time is left, if the policy says so; the first wait is reported
    RESOURCE_EXHAUSTED, RetryInfo  after the delay it names, while time is left
    anything else                  never
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fount.errors import DeadlineExceeded, FountError, InvalidRequest, Loading, Overloaded, ServerUnavailable

__all__ = ["RetryPolicy", "RetryState"]

_log = logging.getLogger(__name__)

_MAX_TIMEOUT_S = 10**8  # three years; gRPC takes what is far above for the past
_LOADING_S = 1.0  # between two attempts while workers load, where the server names no delay
_JITTER = partial(random.uniform, 0.5, 1.0)  # spreads retries in time; no sample depends on it


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a call to an unavailable server is repeated.

    Attributes:
        first_attempts: attempts before any data arrived; few, so that a wrong address is reported soon.
        attempts: attempts since data last arrived; enough for a server to restart.
        base_s: delay before the second attempt; it doubles with each further one.
        cap_s: the longest delay.
        jitter: draws the factor, 0 to 1, that a delay is multiplied by.
        waits_while_loading: False: workers that load are as any that are unavailable, since the caller itself waits.
        on_wait: called once a call with what it waits for, while workers load; by default a logged warning.
    """

    first_attempts: int = 3
    attempts: int = 12
    base_s: float = 0.1
    cap_s: float = 5.0
    jitter: Callable[[], float] = _JITTER
    waits_while_loading: bool = True
    on_wait: Callable[[str], None] = _log.warning

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after this many failures in a row, 1 or more."""
        return min(self.cap_s, self.base_s * 2.0 ** (failures - 1)) * self.jitter()


class RetryState:
    """The time and the attempts left to one call."""

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
            timeout_s: seconds, above 0 and up to 10⁸; None: no limit.
            policy: when to repeat the call.
            between_messages: the time limits the wait for each message of a stream, rather than the whole call.
            clock: seconds of a monotonic clock.
        """
        if timeout_s is not None and not 0 < timeout_s <= _MAX_TIMEOUT_S:
            problem = f"is {timeout_s}; it may be above 0 and up to {_MAX_TIMEOUT_S} seconds"
            raise InvalidRequest("The request cannot be sent:", fields=[("timeout_s", problem)])
        self._timeout_s, self._policy, self._clock = timeout_s, policy, clock
        self._between_messages = between_messages
        self._failures, self._progressed, self._waits = 0, False, False
        self._deadline_s = self._new_deadline_s()

    def restart_message_timer(self) -> None:
        """Count the time until the next message from now on."""
        if self._between_messages:
            self._deadline_s = self._new_deadline_s()

    def record_progress(self) -> None:
        """Note that data arrived; failures are counted from 0 again."""
        self._failures, self._progressed = 0, True

    def call_timeout_s(self) -> float | None:
        """Return the seconds left to the whole call, or raise DeadlineExceeded; None: only messages are limited."""
        return None if self._between_messages else self._remaining_s()

    def message_timeout_s(self) -> float | None:
        """Return the seconds left until the next message, or raise DeadlineExceeded; None: only the call is limited."""
        return self._remaining_s() if self._between_messages else None

    def timeout_error(self) -> DeadlineExceeded:
        """Return the error that reports the timeout."""
        return DeadlineExceeded.after(self._timeout_s or 0.0)

    def delay_s(self, error: FountError) -> float:
        """Return the seconds until the next attempt; or raise the error, if repeating is unsafe or nothing is left."""
        if isinstance(error, DeadlineExceeded) and self._deadline_s is not None and self._clock() >= self._deadline_s:
            raise self.timeout_error() from error
        if not isinstance(error, Overloaded | ServerUnavailable):
            raise error
        if isinstance(error, Loading) and self._policy.waits_while_loading:
            return self._loading_delay_s(error)
        self._failures += 1
        limit = self._policy.attempts if self._progressed else self._policy.first_attempts
        retries_exhausted = isinstance(error, ServerUnavailable) and self._failures >= limit
        names_no_delay = isinstance(error, Overloaded) and error.retry_after_s is None
        if retries_exhausted or names_no_delay:
            raise error
        delay_s = max(error.retry_after_s or 0.0, self._policy.delay_s(self._failures))
        if self._deadline_s is not None and self._clock() + delay_s >= self._deadline_s:
            raise error
        return delay_s

    def _loading_delay_s(self, error: Loading) -> float:
        delay_s = error.retry_after_s or _LOADING_S
        if self._timeout_s is not None and self._deadline_s is not None and self._clock() + delay_s >= self._deadline_s:
            raise error.still_after(self._timeout_s)
        if not self._waits:
            self._waits = True
            limit = "" if self._timeout_s is None else f" for up to {self._timeout_s:g} s"
            self._policy.on_wait(f"{error}; waiting{limit}")
        return delay_s

    def resume_delay_s(self, error: FountError, *, received: int, count: int, next_index: int) -> float:
        """Return the seconds until the rest of a stream is requested; or raise the error with how much was received."""
        try:
            return self.delay_s(error)
        except ServerUnavailable as final:
            if not received:
                raise
            raise final.after(received, count, next_index) from error

    def _new_deadline_s(self) -> float | None:
        return None if self._timeout_s is None else self._clock() + self._timeout_s

    def _remaining_s(self) -> float | None:
        if self._deadline_s is None:
            return None
        remaining_s = self._deadline_s - self._clock()
        if remaining_s <= 0:
            raise self.timeout_error()
        return remaining_s
