"""The scheduler of a gateway: admission control, a backlog for each target, and one send buffer for all.

Work enters and its pieces leave, or it is refused with `Overloaded`. Admission limits how much work may wait, measured
by its cost and not by the number of requests. A stream counts with the samples it could issue now, which its
flow-control window bounds; so a pull of a million rows counts as one window of it. Interactive work is not refused
because of bulk work that waits. A refusal contains the time after which to retry, computed from the rate at which
workers reduce the waiting work.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from functools import partial

from service.config import GatewayConfig
from service.domain import Operation, Priority, Target
from service.errors import NotReady, Overloaded
from service.scheduler.backlog import Backlog
from service.scheduler.stream import SampleStream, SendBuffer
from service.scheduler.work import Work
from service.telemetry.metrics import Metrics
from service.workers import WorkerPool

__all__ = ["BatchingScheduler"]

_CLOSE_S = 2.0  # how long calls in flight may continue when the gateway stops
_STOPPING = "the gateway is stopping; use another gateway, or try again in a moment"
_RETRY_AFTER_S = 1.0  # when the number of streams, not the work, is at its limit
_MIN_RETRY_S, _MAX_RETRY_S = 0.1, 30.0


class BatchingScheduler:
    """Batch streams into worker calls of bounded time.

    Attributes:
        buffer: results not read yet.
    """

    def __init__(self, pool: WorkerPool, config: GatewayConfig, metrics: Metrics) -> None:
        self._pool = pool
        self._config = config
        self._metrics = metrics
        self._admission = _Admission(pool, config, metrics)
        self.buffer = SendBuffer(config)
        self._backlogs: dict[Target, Backlog] = {}
        self._streams_of: Counter[str] = Counter()  # by the caller's subject
        self._closed = False
        metrics.watch_streams(lambda: self.open_streams)
        pool.watch(self._offers_changed)

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self.buffer.streams

    def open(self, work: Work) -> SampleStream:
        """Open a stream, which yields its rows in order, at the pace of its reader; the reader closes it.

        Raises:
            Overloaded: too many streams are open, or too much work waits.
            NotReady: the gateway stops.
        """
        if self._closed:
            raise NotReady(_STOPPING)
        subject = work.context.caller.subject
        self._admission.admit_stream(work, self.open_streams, self._streams_of[subject])
        backlog = self._backlog(work.target)
        stream = SampleStream(work, self.buffer, backlog.dispatch, partial(self._stream_closed, backlog))
        self._admission.admit_cost(work, backlog.seconds_of(stream, stream.demand), self._backlogs.values())
        self.buffer.streams += 1
        self._streams_of[subject] += 1
        backlog.add(stream)
        return stream

    def seconds_per_unit(self, target: Target, operation: Operation) -> float:
        """Return the expected worker time of one unit of an operation; see `CostModel`."""
        return self._backlog(target).costs(operation).per_unit_s

    def _stream_closed(self, backlog: Backlog, stream: SampleStream) -> None:
        subject = stream.work.context.caller.subject
        self.buffer.streams -= 1
        self._streams_of[subject] -= 1
        if not self._streams_of[subject]:
            del self._streams_of[subject]
        backlog.remove(stream)
        self._remove_idle(backlog)

    async def close(self) -> None:
        """End every stream with NotReady; calls in flight may end within a short time, then they are cancelled."""
        self._closed = True
        backlogs = list(self._backlogs.values())
        for backlog in backlogs:
            backlog.fail(NotReady(_STOPPING))
        await asyncio.gather(*(backlog.drain(_CLOSE_S) for backlog in backlogs))

    def _backlog(self, target: Target) -> Backlog:
        backlog = self._backlogs.get(target)
        if backlog is None:
            backlog = Backlog(target, self._pool, self._config, self._metrics, self._remove_idle)
            self._backlogs[target] = backlog
        return backlog

    def _remove_idle(self, backlog: Backlog) -> None:
        """Remove a backlog without work and workers; with workers, its measured costs are worth keeping."""
        if backlog.is_idle and not self._pool.workers(backlog.target):
            self._backlogs.pop(backlog.target, None)

    def _offers_changed(self) -> None:
        for backlog in list(self._backlogs.values()):
            backlog.dispatch()
            self._remove_idle(backlog)


class _Admission:
    """Admit streams within the limits of a configuration, or raise."""

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
            Overloaded: too much work waits for its model, there from its caller, or in total.
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
        workers, caller = max(1, self._pool.workers(work.target)), work.context.caller.subject
        of_model = [(subject, seconds / workers) for target, subject, seconds in waiting if target == work.target]
        of_all = sum(seconds for _, seconds in of_model)
        of_caller = sum(seconds for subject, seconds in of_model if subject == caller)
        total = sum(seconds for _, _, seconds in waiting)
        name = f"{model.name} {model.version}"
        for reason, subject, waiting_s, added_s, limit_s in (
            ("model-queue", name, of_all, own_s / workers, config.max_queue_s),
            ("caller-queue", f"{name} from the caller {caller}", of_caller, own_s / workers, caller_limit),
            ("total-queue", "this gateway", total, own_s, config.total_queue_s),
        ):
            if waiting_s and waiting_s + added_s > limit_s:
                message = f"{waiting_s:.3g} s of work wait for {subject}, and the limit is {limit_s:g} s"
                # Every ready worker reduces the waiting work by a second each second.
                speed = workers if reason == "total-queue" else 1
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
