"""The backlog of one target: its streams, the calls packed from them, and those that must be sent again.

A call leaves as soon as a worker has room for it, and there is room for two a worker: one runs, one hides the way
there. Everything else waits here, where it can still be reordered, cancelled or expire. A call is bounded in time, so
that nobody waits long for the one before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from service.config import GatewayConfig
from service.domain import Call, Reply, Target
from service.errors import FountServiceError, NotReady, WorkerBusy, WorkerFault, WorkerLost
from service.scheduler.admission import SchedulerMeter
from service.scheduler.costs import CostModel
from service.scheduler.dispatch_timing import DispatchTiming
from service.scheduler.fair_queue import INTERACTIVE_CALLS, FairQueue
from service.scheduler.stream import SampleStream
from service.scheduler.worker_call import WorkerCall, units_of
from service.workers import CALLS_PER_WORKER, WorkerPool

__all__ = ["Backlog"]

_log = logging.getLogger(__name__)

_CALL_BYTES = 8 << 20  # most bytes of rows sent to a worker, or asked of it, in one call,
_FULL_BYTES = 32 << 20  # but for its smallest batch, as long as a message holds that
_RETRY_PAUSE_S = 0.1  # longer with every attempt
_BUSY_PAUSE_S = 0.02
_LINGER_S = 1.0  # calls stay short for so long after the last interactive one: the next is likely near
_RAMP = 4  # a stream's first call is short, each that follows so many times longer, until all are as long as allowed


class Backlog:
    """All streams of one target.

    Args:
        target: the workers that may draw them.
        pool: does the calls.
        config: batch and waiting limits.
        meter: is told what happens.
        idle: called when nothing is left to do.
    """

    def __init__(
        self,
        target: Target,
        pool: WorkerPool,
        config: GatewayConfig,
        meter: SchedulerMeter,
        idle: Callable[[Backlog], None],
    ) -> None:
        self.target = target
        self.costs = CostModel(_batch_seconds(pool, target))
        self._pool, self._config, self._meter, self._idle = pool, config, meter, idle
        self._turns = FairQueue()
        self._returned: deque[WorkerCall] = deque()
        self._cut: dict[bool, deque[WorkerCall]] = {True: deque(), False: deque()}  # by urgency
        self._cut_was_last, self._passed_cut = False, 0
        self._paused = 0  # calls that will be returned after a pause
        self._calls: set[asyncio.Task[None]] = set()
        self._foresight = DispatchTiming()
        self._waking: asyncio.TimerHandle | None = None
        self._unissued = 0.0  # units: rows · steps · what a row costs
        self._unsent = 0  # calls on their way into the pool, which does not count them yet
        self._giving_up: asyncio.TimerHandle | None = None
        self._interactive_until_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it can be forgotten."""
        return not (self._turns or self._calls or self._returned or self._has_cut or self._paused)

    @property
    def _has_cut(self) -> bool:
        return any(self._cut.values())

    @property
    def streams(self) -> FairQueue:
        """Its streams."""
        return self._turns

    def add(self, stream: SampleStream) -> None:
        """Let a stream take part."""
        self._turns.add(stream)
        self._unissued += stream.unissued * units_of(stream)
        self._foresight.arrived(stream.began_s)

    def remove(self, stream: SampleStream) -> None:
        """Forget a stream."""
        self._turns.remove(stream)
        self._unissued -= stream.unissued * units_of(stream)
        if self._turns:
            return
        self._unissued = 0.0  # whatever rounding left
        self._returned.clear()
        for calls in self._cut.values():
            calls.clear()
        if self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None

    def fail(self, error: FountServiceError) -> None:
        """End every stream."""
        for stream in self._turns:
            stream.fail(error)

    async def settle(self, timeout_s: float) -> None:
        """Wait for the calls in flight, then give up those that are left."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def seconds_of(self, stream: SampleStream, samples: int) -> float:
        """What so many samples of a stream cost a worker."""
        return self.costs.per_unit_s * samples * units_of(stream)

    @property
    def most_waiting_s(self) -> float:
        """What waits costs no more than this, in seconds of one worker; cheaper to tell than how much it is."""
        return self.costs.per_unit_s * self._unissued

    def pump(self) -> None:
        """Send calls while there is room and something to send."""
        room = self._pool.room(self.target)
        self._watch_workers(room)
        while room > self._unsent:
            if self._may_wait():
                return
            packed = _next_wanted(self._returned) or self._next()
            if packed is None:
                return
            self._send(packed)

    def _send(self, packed: WorkerCall) -> None:
        call = packed.to_call(self.target, self.costs, self._budget_s(packed.leader))
        self._unsent += 1
        self._foresight.sent(packed, call.cost_s, self._pool.workers(self.target), time.monotonic())
        task = asyncio.get_running_loop().create_task(self._execute(packed, call))
        self._calls.add(task)
        task.add_done_callback(partial(self._call_ended, packed))

    def _may_wait(self) -> bool:
        """Whether a call sent now would only lie at a worker, where one sent later could hold more; then look again."""
        if self._waking:
            self._waking.cancel()
            self._waking = None
        if self._returned or self._has_cut or not self._turns or self._turns.would_fill(self._room):
            return False
        send_at_s = self._foresight.send_at_s(self._pool.workers(self.target))
        first = self._turns.first_new()
        if first is not None:
            send_at_s = max(send_at_s, self._foresight.company_until_s(first.began_s))
        wait_s = send_at_s - time.monotonic()
        if wait_s <= 0:
            return False
        self._waking = asyncio.get_running_loop().call_later(wait_s, self.pump)
        return True

    def _watch_workers(self, room: int) -> None:
        if room or self._pool.workers(self.target):
            if self._giving_up:
                self._giving_up.cancel()
                self._giving_up = None
        elif self._turns and not self._giving_up:
            self._giving_up = asyncio.get_running_loop().call_later(self._config.worker_wait_s, self._give_up)

    def _give_up(self) -> None:
        self._giving_up = None
        model, waited_s = self.target.model, self._config.worker_wait_s
        self.fail(NotReady(f"{model.name} {model.version} has had no ready worker for {waited_s:g} s"))

    def _next(self) -> WorkerCall | None:
        """A new call, or the rest of a draw that was cut, turn about; of bulk, when interactive work had its turns."""
        urgent, bulk = self._cut[True], self._cut[False]
        hurry = bool(urgent) or self._turns.interactive_waits
        packed: WorkerCall | None = None
        if bulk and (self._passed_cut >= INTERACTIVE_CALLS if hurry else not self._cut_was_last):
            packed = _next_wanted(bulk)
        elif urgent and not self._cut_was_last:
            packed = _next_wanted(urgent)
        packed = packed or self._pack() or _next_wanted(urgent) or _next_wanted(bulk)
        self._cut_was_last = packed is not None and packed.is_cut
        is_bulk = packed is None or (packed.is_cut and not packed.leader.work.urgent)
        self._passed_cut = 0 if is_bulk or not bulk else self._passed_cut + 1
        return packed

    def _pack(self) -> WorkerCall | None:
        """Cut one call's worth from the streams whose turn it is."""
        # Each that takes leaves less room for those after it.
        slices = [stream.take(count) for stream, count in self._turns.next_call(self._room) if stream.demand]
        for each in slices:
            self._unissued -= each.item.count * units_of(each.stream)
            if not each.stream.unissued:
                self._turns.pass_by(each.stream)
            if each.stream.slices_issued == 1:
                self._meter.queued(self.target, time.monotonic() - each.stream.began_s)
        return WorkerCall(slices=slices) if slices else None

    def _room(self, leader: SampleStream) -> int:
        """How many samples a call led by this stream may hold."""
        within = self.costs.units_within(self._budget_s(leader)) / units_of(leader)
        row_bytes = max(1, leader.work.sample_bytes, leader.work.feed.row_bytes)
        fewest = max(1, min(self.costs.smallest, _FULL_BYTES // row_bytes))
        most = max(fewest, min(int(within), _CALL_BYTES // row_bytes))
        return most - most % self.costs.granule if most >= self.costs.granule else most

    def _budget_s(self, leader: SampleStream) -> float:
        short_s, long_s = self._config.max_batch_ms / 1e3, self._config.bulk_batch_ms / 1e3
        if self._turns.interactive_waits:
            self._interactive_until_s = time.monotonic() + _LINGER_S
        if time.monotonic() < self._interactive_until_s:
            return short_s / CALLS_PER_WORKER  # all calls a worker holds together are then before an interactive one
        ramp = 8 if leader.work.at_once else min(leader.slices_issued, 8)
        return min(long_s, short_s * float(_RAMP**ramp))

    async def _execute(self, packed: WorkerCall, call: Call) -> None:
        begun, steps = time.monotonic(), packed.steps_left
        self._unsent -= 1
        reply: Reply | None = None
        try:
            reply = await self._pool.call(call, timeout_s=self._config.worker_timeout_s)
        except NotReady as error:
            self._repeat(packed, error)
            return
        except FountServiceError as error:
            packed.fail(error)
            return
        finally:
            took_s = time.monotonic() - begun
            self._foresight.ended(packed, took_s, reply.compute_s if reply else None)
        self._meter.called(self.target, packed.samples, took_s, reply)
        rest = packed.settle(reply)
        self.costs.learn(packed.units * (steps - (rest.steps_left if rest else 0)), reply.compute_s)
        if rest:
            self._cut[rest.leader.work.urgent].append(rest)

    def _repeat(self, packed: WorkerCall, error: NotReady) -> None:
        """Put a call back that no worker did; one that keeps losing workers is split, so that innocents go on."""
        self._meter.repeated(self.target, error.reason)
        if isinstance(error, WorkerBusy):
            self._return_later([packed], _BUSY_PAUSE_S)
            return
        _log.warning("a call of %d samples is repeated: %s", packed.samples, error)
        packed.lost += isinstance(error, WorkerLost)
        packed.died += isinstance(error, WorkerLost) and error.died
        if packed.lost < self._config.worker_attempts:
            alone = [WorkerCall(slices=[each], lost=packed.lost, died=packed.died) for each in packed.slices]
            self._return_later(alone if packed.lost > 1 else [packed], _RETRY_PAUSE_S * packed.lost)
        elif packed.died == packed.lost:  # whatever is drawn here, it ends the process that draws it
            packed.fail(WorkerFault(f"the worker's process died each of the {packed.died} times it drew these samples"))
        else:
            packed.fail(error)

    def _return_later(self, calls: list[WorkerCall], pause_s: float) -> None:
        def put_back() -> None:
            self._paused -= 1
            self._returned.extend(calls)
            self._after()

        self._paused += 1
        asyncio.get_running_loop().call_later(pause_s, put_back)

    def _call_ended(self, packed: WorkerCall, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        error = NotReady("the call was given up") if task.cancelled() else task.exception()
        if error:  # unexpected ones end the streams of this call alone, and are logged where they are answered
            packed.fail(error)
        self._after()

    def _after(self) -> None:
        self.pump()
        if self.is_idle:
            self._idle(self)


def _next_wanted(calls: deque[WorkerCall]) -> WorkerCall | None:
    """The next of calls made before, without what nobody wants any more."""
    while calls:
        packed = calls.popleft()
        if packed.keep_wanted():
            return packed
    return None


def _batch_seconds(pool: WorkerPool, target: Target) -> dict[int, float]:
    return next((dict(offer.batch_seconds) for offer in pool.offers() if offer.target == target), {})
