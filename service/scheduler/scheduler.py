"""The scheduler of a gateway: one backlog for each target, one admission control and one send buffer for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.config import GatewayConfig
from service.domain import Target
from service.errors import NotReady
from service.scheduler.admission import Admission
from service.scheduler.backlog import Backlog
from service.scheduler.stream import SampleStream, SendBuffer
from service.scheduler.work import Piece, Work
from service.telemetry.metrics import Metrics
from service.workers import WorkerPool

__all__ = ["BatchingScheduler"]

_CLOSE_S = 2.0  # how long calls in flight may continue when the gateway stops
_STOPPING = "the gateway is stopping; use another gateway, or try again in a moment"


class BatchingScheduler:
    """Batch streams into worker calls of bounded time.

    Args:
        pool: executes the calls.
        config: batch, window and admission limits.
        metrics: records streams and calls.

    Attributes:
        buffer: results not read yet.
    """

    def __init__(self, pool: WorkerPool, config: GatewayConfig, metrics: Metrics) -> None:
        self._pool = pool
        self._config = config
        self._metrics = metrics
        self._admission = Admission(pool, config, metrics)
        self.buffer = SendBuffer(config)
        self._backlogs: dict[Target, Backlog] = {}
        self._streams_of: Counter[str] = Counter()  # by the caller's subject
        self._closed = False
        pool.watch(self._offers_changed)

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._streams_of.total()

    async def run(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Yield a stream's rows, in order, at the pace of its reader.

        Closing the generator ends the stream: rows not yet sent to a worker are never computed.

        Raises:
            Overloaded: too many streams are open, or too much work waits.
            NotReady: the target's workers are gone, and retries failed.
            WorkerFault: a worker returned an invalid result.
        """
        if self._closed:
            raise NotReady(_STOPPING)
        subject = work.context.caller.subject
        self._admission.admit_stream(work, self.open_streams, self._streams_of[subject])
        backlog = self._backlog(work.target)
        stream = SampleStream(work, self.buffer, backlog.dispatch)
        try:
            self._admission.admit_cost(work, backlog.seconds_of(stream, stream.demand), self._backlogs.values())
        except BaseException:
            stream.close()
            raise
        backlog.add(stream)
        self._streams_of[subject] += 1
        self._metrics.open_streams(self.open_streams)
        try:
            async with aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            stream.close()
            backlog.remove(stream)
            self._remove_idle(backlog)
            self._streams_of -= Counter([subject])  # removes callers without streams
            self._metrics.open_streams(self.open_streams)

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
