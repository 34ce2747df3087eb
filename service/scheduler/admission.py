"""Admission: how much work may wait, counted in what it costs and not in requests.

A stream counts with what it could issue now, which its window bounds; so a pull of a million waits as much as one
window of it. Interactive work is not refused for bulk that waits behind it. Refusals say when to come again, from the
rate at which workers work off what waits.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from service.config import GatewayConfig
from service.domain import Reply, Target
from service.errors import Overloaded
from service.scheduler import Work
from service.workers import WorkerPool

if TYPE_CHECKING:
    from service.scheduler.backlog import Backlog

__all__ = ["Admission", "SchedulerMeter", "SendBuffer"]


_RETRY_AFTER_S = 1.0  # when places, not work, are what is missing
_SHORTEST_S, _LONGEST_S = 0.1, 30.0


class Admission:
    """Says yes, or raises.

    Args:
        pool: how many workers there are.
        config: the limits.
        meter: is told of refusals.
    """

    def __init__(self, pool: WorkerPool, config: GatewayConfig, meter: SchedulerMeter) -> None:
        self._pool, self._config, self._meter = pool, config, meter
        self._booked: dict[str, float] = {}  # limit: when, `time.monotonic()`, there is room again for one more

    def admit_place(self, work: Work, open_streams: int, of_caller: int) -> None:
        """Admit a stream by the number of those open.

        Raises:
            Overloaded: there are as many as there may be.
        """
        limit, subject = work.caller.limits.max_streams, work.caller.subject
        if of_caller >= limit:
            self._refuse("caller-streams", f"{subject} has {limit} streams open, the most it may", _RETRY_AFTER_S)
        if open_streams >= self._config.max_streams:
            most = self._config.max_streams
            self._refuse("streams", f"{most} streams are open, the most this gateway takes", _RETRY_AFTER_S)

    def admit_cost(self, work: Work, own_s: float, backlogs: Collection[Backlog]) -> None:
        """Admit a stream by what its samples cost and what already waits.

        Args:
            work: the stream.
            own_s: what it adds, seconds of one worker.
            backlogs: everything that waits.

        Raises:
            Overloaded: too much waits of its model, for its caller, or in total.
        """
        config, model = self._config, work.target.model
        caller_limit = min(config.caller_queue_s, work.caller.limits.max_queue_s)
        least = min(config.max_queue_s, caller_limit, config.total_queue_s)
        if own_s + sum(each.most_waiting_s for each in backlogs) <= least:
            return  # however it is counted; counting goes through every stream
        waiting = [
            (each.target, stream.work.caller.subject, each.seconds_of(stream, stream.demand))
            for each in backlogs
            for stream in each.streams
            if stream.work.urgent or not work.urgent
        ]
        workers = max(1, self._pool.workers(work.target))
        of_model = sum(seconds for target, _, seconds in waiting if target == work.target) / workers
        of_caller = sum(seconds for _, subject, seconds in waiting if subject == work.caller.subject)
        total = sum(seconds for _, _, seconds in waiting)
        for reason, what, waits_s, adds_s, limit_s in (
            ("model-queue", f"{model.name} {model.version}", of_model, own_s / workers, config.max_queue_s),
            ("caller-queue", f"the caller {work.caller.subject}", of_caller, own_s, caller_limit),
            ("total-queue", "this gateway", total, own_s, config.total_queue_s),
        ):
            if waits_s and waits_s + adds_s > limit_s:
                told = f"{waits_s:.3g} s of work wait for {what}, and at most {limit_s:g} s may"
                # Every ready worker takes a second of work off each second.
                speed = 1 if reason == "model-queue" else workers
                self._refuse(reason, told, self._book(what, (waits_s + adds_s - limit_s) / speed, adds_s / speed))

    def _book(self, what: str, fits_in_s: float, takes_s: float) -> float:
        """When to come again: once it fits, and one after the other, or all who are refused would come at once."""
        now = time.monotonic()
        self._booked = {key: until for key, until in self._booked.items() if until > now}
        comes = max(now + fits_in_s, self._booked.get(what, now))
        self._booked[what] = min(comes + takes_s, now + _LONGEST_S)
        return comes - now

    def _refuse(self, reason: str, message: str, retry_after_s: float) -> None:
        self._meter.rejected(reason)
        raise Overloaded(message, retry_after_s=max(_SHORTEST_S, retry_after_s))


# FOLDED FROM service.scheduler.admission:
# What the scheduler tells telemetry.


class SchedulerMeter(Protocol):
    """What the scheduler tells telemetry."""

    def streams(self, open_streams: int) -> None:
        """Tell how many streams are open."""
        ...

    def queued(self, target: Target, seconds: float) -> None:
        """Tell how long a stream waited until its first samples were sent to a worker."""
        ...

    def called(self, target: Target, samples: int, call_s: float, reply: Reply) -> None:
        """Tell of one call answered."""
        ...

    def repeated(self, target: Target, reason: str) -> None:
        """Tell of one call that will be sent again."""
        ...

    def rejected(self, reason: str) -> None:
        """Tell of one stream refused."""
        ...


# FOLDED FROM service.scheduler.admission:
# Room for samples made but not yet taken: bounded for one stream, and for all of them together. A stream asks
# how much more it may hold; readers that stop keep what they hold and get no more. Half of the room is shared
# by whoever is fast, the other half is a floor under each stream, so that those who stopped starve nobody.


class SendBuffer:
    """The room of one gateway, in bytes.

    Args:
        config: `window_bytes` a stream, `max_unread_bytes` for all of them, `max_streams`.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._window = config.window_bytes
        self._shared = config.max_unread_bytes // 2
        self._floor = config.max_unread_bytes // (2 * config.max_streams)
        self.streams = 0
        self.held = 0

    def left_for(self, held: int) -> int:
        """How many more bytes a stream that holds `held` may hold now; may be 0 or less."""
        share = min(self._window, self._shared // max(1, self.streams))
        return max(min(self._floor, self._window) - held, min(share - held, self._shared - self.held))
