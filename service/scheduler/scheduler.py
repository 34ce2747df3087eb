"""The scheduler of the gateway: a backlog for each target, and admission before it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.config import GatewayConfig
from service.domain import Target
from service.errors import NotReady
from service.scheduler import Piece, Work
from service.scheduler.admission import Admission, SchedulerMeter, SendBuffer
from service.scheduler.backlog import Backlog
from service.scheduler.stream import SampleStream
from service.workers import WorkerPool

__all__ = ["BatchingScheduler"]

_CLOSE_S = 2.0  # what calls in flight have when the gateway stops


class BatchingScheduler:
    """Packs streams into calls bounded in time; see the room's other modules.

    Args:
        pool: does the calls.
        config: batch, window and admission limits.
        meter: is told what happens.
    """

    def __init__(self, pool: WorkerPool, config: GatewayConfig, meter: SchedulerMeter) -> None:
        self._pool = pool
        self._config = config
        self._meter = meter
        self._admission = Admission(pool, config, meter)
        self._unread = SendBuffer(config)
        self._backlogs: dict[Target, Backlog] = {}
        self._streams_of: Counter[str] = Counter()
        self._closed = False
        pool.watch(self._offers_changed)

    async def run(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Draw a stream's samples, in order; see `Scheduler.run`."""
        if self._closed:
            raise NotReady("the gateway is stopping; ask another, or again in a moment")
        subject = work.caller.subject
        self._admission.admit_place(work, self._streams_of.total(), self._streams_of[subject])
        backlog = self._backlog(work.target)
        stream = SampleStream(work, self._unread, backlog.pump)
        try:
            self._admission.admit_cost(work, backlog.seconds_of(stream, stream.demand), self._backlogs.values())
        except BaseException:
            stream.close()
            raise
        backlog.add(stream)
        self._streams_of[subject] += 1
        self._meter.streams(self._streams_of.total())
        try:
            async with aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            stream.close()
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

    def _backlog(self, target: Target) -> Backlog:
        backlog = self._backlogs.get(target)
        if backlog is None:
            backlog = Backlog(target, self._pool, self._config, self._meter, self._forget_idle)
            self._backlogs[target] = backlog
        return backlog

    def _forget_idle(self, backlog: Backlog) -> None:
        """Forget what has nothing to do and no workers; until then, what it learned of costs is worth keeping."""
        if backlog.is_idle and not self._pool.workers(backlog.target):
            self._backlogs.pop(backlog.target, None)

    def _offers_changed(self) -> None:
        for backlog in list(self._backlogs.values()):
            backlog.pump()
            self._forget_idle(backlog)
