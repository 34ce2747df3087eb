"""Admission control: how much work may wait, measured by its cost and not by the number of requests.

A stream counts with the samples it could issue now, which its flow-control window bounds; so a pull of a million rows
counts as one window of it. Interactive work is not refused because of bulk work that waits. A refusal contains the time
after which to retry, computed from the rate at which workers reduce the waiting work.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from service.config import GatewayConfig
from service.domain import Priority
from service.errors import Overloaded
from service.scheduler.work import Work
from service.telemetry.metrics import Metrics
from service.workers import WorkerPool

if TYPE_CHECKING:
    from service.scheduler.backlog import Backlog

__all__ = ["Admission"]

_RETRY_AFTER_S = 1.0  # when the number of streams, not the work, is at its limit
_MIN_RETRY_S, _MAX_RETRY_S = 0.1, 30.0


class Admission:
    """Admit streams, or raise.

    Args:
        pool: the workers.
        config: the limits.
        metrics: counts refusals.
    """

    def __init__(self, pool: WorkerPool, config: GatewayConfig, metrics: Metrics) -> None:
        self._pool, self._config, self._metrics = pool, config, metrics
        self._booked: dict[str, float] = {}  # subject of a limit: `time.monotonic()` up to which retries are booked

    def admit_stream(self, work: Work, open_streams: int, of_caller: int) -> None:
        """Check the number of open streams.

        Raises:
            Overloaded: the caller's limit or the gateway's is reached.
        """
        limit, subject = work.context.caller.limits.max_streams, work.context.caller.subject
        if of_caller >= limit:
            self._refuse("caller-streams", f"{subject} has {limit} streams open, which is its limit", _RETRY_AFTER_S)
        if open_streams >= self._config.max_streams:
            message = f"{self._config.max_streams} streams are open, which is this gateway's limit"
            self._refuse("streams", message, _RETRY_AFTER_S)

    def admit_cost(self, work: Work, own_s: float, backlogs: Collection[Backlog]) -> None:
        """Check the cost of a stream's samples and of the work that already waits.

        Args:
            work: the stream.
            own_s: what it adds, seconds of one worker.
            backlogs: all waiting work.

        Raises:
            Overloaded: too much work waits for its model, for its caller, or in total.
        """
        config, model = self._config, work.target.model
        caller_limit = min(config.caller_queue_s, work.context.caller.limits.max_queue_s)
        lowest_limit = min(config.max_queue_s, caller_limit, config.total_queue_s)
        if own_s + sum(each.max_waiting_s for each in backlogs) <= lowest_limit:
            return  # an upper bound fits; the exact sums below go through every stream
        waiting = [
            (each.target, stream.work.context.caller.subject, each.seconds_of(stream, stream.demand))
            for each in backlogs
            for stream in each.streams
            if work.context.priority is Priority.BULK or stream.work.context.priority is Priority.INTERACTIVE
        ]
        workers = max(1, self._pool.workers(work.target))
        of_model = sum(seconds for target, _, seconds in waiting if target == work.target) / workers
        of_caller = sum(seconds for _, subject, seconds in waiting if subject == work.context.caller.subject)
        total = sum(seconds for _, _, seconds in waiting)
        for reason, subject, waiting_s, added_s, limit_s in (
            ("model-queue", f"{model.name} {model.version}", of_model, own_s / workers, config.max_queue_s),
            ("caller-queue", f"the caller {work.context.caller.subject}", of_caller, own_s, caller_limit),
            ("total-queue", "this gateway", total, own_s, config.total_queue_s),
        ):
            if waiting_s and waiting_s + added_s > limit_s:
                message = f"{waiting_s:.3g} s of work wait for {subject}, and the limit is {limit_s:g} s"
                # Every ready worker reduces the waiting work by a second each second.
                speed = 1 if reason == "model-queue" else workers
                retry_s = self._book(subject, (waiting_s + added_s - limit_s) / speed, added_s / speed)
                self._refuse(reason, message, retry_s)

    def _book(self, subject: str, fits_in_s: float, takes_s: float) -> float:
        """Return after how many seconds to retry: once the work fits, and after retries that were booked before.

        Without the booking, all refused callers would retry at the same moment.
        """
        now = time.monotonic()
        self._booked = {key: until for key, until in self._booked.items() if until > now}
        retry_at = max(now + fits_in_s, self._booked.get(subject, now))
        self._booked[subject] = min(retry_at + takes_s, now + _MAX_RETRY_S)
        return retry_at - now

    def _refuse(self, reason: str, message: str, retry_after_s: float) -> None:
        self._metrics.rejected(reason)
        raise Overloaded(message, retry_after_s=max(_MIN_RETRY_S, retry_after_s))
