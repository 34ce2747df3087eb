"""The first scheduler: packs by samples, turn about, without waiting.

One backlog a target, one lane within it for each set of parameters that may share a call. A call goes out as soon as a
worker has room for it; whatever arrives meanwhile shares the next one. Each call gives every stream of its lane an even
share, then fills up in order, so a request for one sample never waits behind a request for a million.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

from service.config import GatewayConfig
from service.domain import Call, Operation, Parameters, Reply, Target
from service.errors import FountServiceError, NotReady, Overloaded
from service.scheduler import Piece, Work
from service.scheduler.stream import SampleStream, Slice
from service.workers import WorkerPool

__all__ = ["PackingScheduler", "SchedulerMeter"]

_log = logging.getLogger(__name__)

_REPLY_BYTES = 4 << 20  # most sample bytes asked of a worker in one call
_WORKER_WAIT_S = 10.0  # how long streams wait for a target's workers to come back
_RETRY_PAUSE_S = 0.1  # longer with every attempt
_CLOSE_S = 2.0  # what calls in flight have when the gateway stops
_RETRY_AFTER_S = 1.0


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

    def rejected(self, reason: str) -> None:
        """Tell of one stream refused."""
        ...


class PackingScheduler:
    """Packs streams into calls; see the module.

    Args:
        pool: does the calls.
        config: batch, window and admission limits.
        meter: is told what happens.
    """

    def __init__(self, pool: WorkerPool, config: GatewayConfig, meter: SchedulerMeter) -> None:
        self._pool = pool
        self._config = config
        self._meter = meter
        self._backlogs: dict[Target, _Backlog] = {}
        self._streams_of: Counter[str] = Counter()
        self._closed = False
        pool.watch(self._offers_changed)

    async def run(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Draw a stream's samples, in order; see `Scheduler.run`."""
        self._admit(work)
        subject = work.caller.subject
        self._streams_of[subject] += 1
        self._meter.streams(self._streams_of.total())
        backlog = self._backlogs.get(work.target)
        if backlog is None:
            backlog = _Backlog(work.target, self._pool, self._config, self._meter, self._forget_idle)
            self._backlogs[work.target] = backlog
        stream = SampleStream(work, self._window(work), backlog.pump)
        backlog.add(stream)
        try:
            async with aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            backlog.remove(stream)
            self._forget_idle(backlog)
            self._streams_of -= Counter([subject])  # a caller without streams is forgotten
            self._meter.streams(self._streams_of.total())

    async def close(self) -> None:
        """End every stream with NotReady; calls in flight have a moment to end, then they are given up."""
        self._closed = True
        backlogs = list(self._backlogs.values())
        for backlog in backlogs:
            backlog.fail(NotReady("the gateway is stopping; ask another, or again in a moment"))
        await asyncio.gather(*(backlog.settle(_CLOSE_S) for backlog in backlogs))

    def _forget_idle(self, backlog: _Backlog) -> None:
        if backlog.is_idle and self._backlogs.get(backlog.target) is backlog:
            del self._backlogs[backlog.target]

    def _admit(self, work: Work) -> None:
        if self._closed:
            raise NotReady("the gateway is stopping; ask another, or again in a moment")
        limit = work.caller.limits.max_streams
        if self._streams_of[work.caller.subject] >= limit:
            self._meter.rejected("caller-streams")
            raise Overloaded(f"{work.caller.subject} has {limit} streams open, the most it may",
                             retry_after_s=_RETRY_AFTER_S)  # fmt: skip
        if self._streams_of.total() >= self._config.max_streams:
            self._meter.rejected("streams")
            raise Overloaded(f"{self._config.max_streams} streams are open, the most this gateway takes",
                             retry_after_s=_RETRY_AFTER_S)  # fmt: skip

    def _window(self, work: Work) -> int:
        return max(1, min(self._config.window_samples, self._config.window_bytes // max(1, work.sample_bytes)))

    def _offers_changed(self) -> None:
        for backlog in list(self._backlogs.values()):
            backlog.pump()


class _Backlog:
    """All streams of one target, in lanes by parameters."""

    def __init__(
        self,
        target: Target,
        pool: WorkerPool,
        config: GatewayConfig,
        meter: SchedulerMeter,
        idle: Callable[[_Backlog], None],
    ) -> None:
        self.target = target
        self._idle = idle
        self._pool = pool
        self._config = config
        self._meter = meter
        self._lanes: dict[Parameters, deque[SampleStream]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        return not self._lanes and not self._calls

    def add(self, stream: SampleStream) -> None:
        self._lanes.setdefault(stream.work.parameters, deque()).append(stream)

    def remove(self, stream: SampleStream) -> None:
        lane = self._lanes[stream.work.parameters]
        lane.remove(stream)
        if not lane:
            del self._lanes[stream.work.parameters]
        if not self._lanes and self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None

    def fail(self, error: FountServiceError) -> None:
        for lane in self._lanes.values():
            for stream in lane:
                stream.fail(error)

    async def settle(self, timeout_s: float) -> None:
        """Wait for the calls in flight, then give up those that are left."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def pump(self) -> None:
        """Send calls while there is room and something to send."""
        workers = self._pool.workers(self.target)
        self._watch_workers(workers)
        while len(self._calls) < workers * self._config.calls_per_worker:
            slices = self._pack()
            if not slices:
                return
            for each in slices:
                if each.item.start_index == each.stream.work.start_index:
                    self._meter.queued(self.target, time.monotonic() - each.stream.began_s)
            task = asyncio.get_running_loop().create_task(self._execute(slices))
            self._calls.add(task)
            task.add_done_callback(partial(self._call_ended, slices))

    def _watch_workers(self, workers: int) -> None:
        if workers and self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None
        elif not workers and self._lanes and not self._giving_up:
            self._giving_up = asyncio.get_running_loop().call_later(_WORKER_WAIT_S, self._give_up)

    def _give_up(self) -> None:
        self._giving_up = None
        model = self.target.model
        self.fail(NotReady(f"{model.name} {model.version} has had no ready worker for {_WORKER_WAIT_S:g} s"))

    def _pack(self) -> list[Slice]:
        """Choose the lane whose turn it is and cut one call's worth from its streams."""
        for parameters in list(self._lanes):
            lane = self._lanes.pop(parameters)
            self._lanes[parameters] = lane  # to the end: the next call is another lane's turn
            waiting = [stream for stream in lane if stream.demand]
            if not waiting:
                continue
            largest = max(1, *(stream.work.sample_bytes for stream in waiting))
            room = max(1, min(self._config.batch_samples, _REPLY_BYTES // largest))
            slices = _cut(waiting, room, max(1, room // len(waiting)))
            # Those that found no room come first next time; when all did, the room left over is another's next time.
            lane.rotate(-len(slices) if len(slices) < len(waiting) else -1)
            return slices
        return []

    async def _execute(self, slices: list[Slice]) -> None:
        try:
            reply = await self._call(slices)
        except FountServiceError as error:
            for each in slices:
                each.fail(error)
            return
        for each, outcome in zip(slices, reply.outcomes, strict=True):
            each.settle(outcome)

    async def _call(self, slices: list[Slice]) -> Reply:
        works = [each.stream.work for each in slices]
        deadlines = [work.deadline_unix_s for work in works if work.deadline_unix_s is not None]
        call = Call(
            target=self.target,
            operation=Operation.SAMPLE,
            parameters=works[0].parameters,
            items=tuple(each.item for each in slices),
            deadline_unix_s=max(deadlines) if len(deadlines) == len(works) else None,
            request_id=works[0].request_id,
        )
        for attempt in range(1, self._config.worker_attempts + 1):
            begun = time.monotonic()
            try:
                reply = await self._pool.call(call, timeout_s=self._config.worker_timeout_s)
            except NotReady as error:
                if attempt == self._config.worker_attempts:
                    raise
                _log.warning("call %s is repeated: %s", call.request_id, error)
                await asyncio.sleep(_RETRY_PAUSE_S * attempt)
                if not await self._has_worker(slices):
                    raise
                continue
            samples = sum(each.item.count for each in slices)
            self._meter.called(self.target, samples, time.monotonic() - begun, reply)
            return reply
        raise AssertionError("a call ends by a reply or an error")

    async def _has_worker(self, slices: list[Slice]) -> bool:
        """Wait for a worker to come back, as long as somebody still wants the call."""
        ends = time.monotonic() + _WORKER_WAIT_S
        while not self._pool.workers(self.target):
            if time.monotonic() > ends or all(each.stream.is_closed for each in slices):
                return False
            await asyncio.sleep(_RETRY_PAUSE_S)
        return not all(each.stream.is_closed for each in slices)

    def _call_ended(self, slices: list[Slice], task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        error = NotReady("the call was given up") if task.cancelled() else task.exception()
        for each in slices:
            if error:  # unexpected ones end the streams of this call alone, and are logged where they are answered
                each.fail(error)
        if not self._lanes:
            self._idle(self)
        self.pump()


def _cut(waiting: list[SampleStream], room: int, share: int) -> list[Slice]:
    """Give each stream its share of one call in turn, then what room is left to the first that want it."""
    counts: dict[SampleStream, int] = {}
    for most in (share, room):
        for stream in waiting:
            more = min(most, stream.demand - counts.get(stream, 0), room)
            if more > 0:
                counts[stream] = counts.get(stream, 0) + more
                room -= more
    return [stream.take(count) for stream, count in counts.items()]
