"""The backlog of one target: its streams, preempted draws, and calls that must be repeated.

A worker holds at most `CALLS_PER_WORKER` calls: one runs, one hides the transfer time. A call leaves shortly before a
worker needs it (`DispatchTiming`), or when it is full; everything else waits here, where it can still be reordered,
cancelled or expire. The time of a call is bounded, so that no stream waits long for the call before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from service.calls import Call, Reply
from service.config import GatewayConfig
from service.domain import Operation, Priority, Target
from service.errors import FountServiceError, NotReady, WorkerBusy, WorkerFault, WorkerLost
from service.scheduler.fair_queue import INTERACTIVE_CALLS, FairQueue
from service.scheduler.stream import SampleStream
from service.scheduler.timing import CostModel, DispatchTiming
from service.scheduler.worker_call import WorkerCall
from service.telemetry.metrics import Metrics
from service.workers import CALLS_PER_WORKER, WorkerPool

__all__ = ["Backlog"]

_log = logging.getLogger(__name__)

_CALL_BYTES = 8 << 20  # limit of the rows in one request or reply,
_MIN_BATCH_BYTES = 32 << 20  # except for the smallest batch, up to the message limit
_RETRY_PAUSE_S = 0.1  # times the number of attempts
_BUSY_PAUSE_S = 0.02
_LINGER_S = 1.0  # calls stay short for so long after the last interactive one: the next is likely soon
_RAMP_FACTOR, _RAMP_CALLS = 4, 8  # a stream's first call is short; each later one may be so many times longer


class Backlog:
    """All streams of one target.

    Args:
        idle: called when nothing may remain to be done.
    """

    def __init__(
        self,
        target: Target,
        pool: WorkerPool,
        config: GatewayConfig,
        metrics: Metrics,
        idle: Callable[[Backlog], None],
    ) -> None:
        self.target = target
        self._offer = next((each for each in pool.offers() if each.target == target), None)
        self._costs: dict[Operation, CostModel] = {}
        self.streams = FairQueue()
        self._pool, self._config, self._metrics, self._idle = pool, config, metrics, idle
        self._repeated: deque[WorkerCall] = deque()
        self._paused = 0  # calls that will be repeated after a pause
        self._preempted: dict[Priority, deque[WorkerCall]] = {each: deque() for each in Priority}
        self._resumed_last = False  # whether the last call resumed a preempted draw
        self._calls_before_resumed_bulk = 0  # calls since the last resumed bulk draw, while one waits
        self._tasks: dict[asyncio.Task[None], WorkerCall] = {}
        self._starting = 0  # tasks that have not reached the pool, which does not count them yet
        self._timing = DispatchTiming()
        self._unissued_units = 0.0
        self._dispatch_timer: asyncio.TimerHandle | None = None
        self._no_worker_timer: asyncio.TimerHandle | None = None
        self._short_calls_until_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether there is no work."""
        return not (self.streams or self._tasks or self._repeated or self._has_preempted or self._paused)

    @property
    def _has_preempted(self) -> bool:
        return any(self._preempted.values())

    @property
    def _has_work(self) -> bool:
        """Whether something waits to be sent."""
        return self.streams.has_unissued or bool(self._repeated) or self._has_preempted

    @property
    def max_waiting_s(self) -> float:
        """An upper bound of the waiting work, in seconds of one worker; cheaper to compute than the exact sum."""
        return max((each.per_unit_s for each in self._costs.values()), default=0.0) * self._unissued_units

    def costs(self, operation: Operation) -> CostModel:
        """Return the costs of one operation; a score is expected to take as long as a draw until some have."""
        if operation not in self._costs:
            seconds: Mapping[int, float] = self._offer.batch_seconds if self._offer else {}
            model = self._offer.model if self._offer else None
            steps = model.draw_steps if model and operation is Operation.SCORE else 1
            self._costs[operation] = CostModel({size: steps * each for size, each in seconds.items()})
        return self._costs[operation]

    def seconds_of(self, stream: SampleStream, samples: int) -> float:
        """Return the worker time of so many samples of a stream."""
        return self.costs(stream.work.operation).per_unit_s * samples * stream.sample_units

    def add(self, stream: SampleStream) -> None:
        """Add a stream."""
        self.streams.add(stream)
        self._unissued_units += stream.unissued * stream.sample_units
        self._timing.arrived(stream.opened_s)

    def remove(self, stream: SampleStream) -> None:
        """Remove a stream."""
        self.streams.remove(stream)
        self._timing.left()
        self._unissued_units -= stream.unissued * stream.sample_units
        for task, call in self._tasks.items():
            if call.is_abandoned:
                task.cancel()
        if self.streams:
            self.dispatch()  # others may use what it held of the send buffer
            return
        self._unissued_units = 0.0  # drops rounding errors
        for calls in (self._repeated, *self._preempted.values()):
            calls.clear()
        self._stop_no_worker_timer()

    def fail(self, error: FountServiceError) -> None:
        """End every stream with an error."""
        for stream in self.streams:
            stream.fail(error)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls in flight, then cancel the remaining ones."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def dispatch(self) -> None:
        """Send calls while workers have capacity and there is something to send."""
        if not (self._has_work or self._no_worker_timer):
            return
        capacity = self._pool.capacity(self.target)
        self._watch_workers(capacity)
        while self._has_work and capacity > self._starting:
            if self._may_wait():
                return
            call = _pop_wanted(self._repeated) or self._next_call()
            if call is None:
                return
            self._send(call)

    def _may_wait(self) -> bool:
        """Whether a later call could hold more and would lose no time; if so, `dispatch` runs again at that time."""
        if self._dispatch_timer:
            self._dispatch_timer.cancel()
            self._dispatch_timer = None
        if self._repeated or self._has_preempted:
            return False
        leader, send_at_s = self.streams.leader(), self._timing.send_at_s(self._pool.workers(self.target)) or 0.0
        if leader and leader.work.context.priority is Priority.BULK and not leader.slices_issued:
            waiting = self._unissued_units / (leader.unissued * leader.sample_units)  # in streams like this one
            send_at_s = max(send_at_s, self._timing.batching_until_s(leader.opened_s, waiting))
        wait_s = send_at_s - time.monotonic()
        if wait_s <= 0 or (leader and self.streams.fills(leader, self._capacity(leader))):
            return False
        self._dispatch_timer = asyncio.get_running_loop().call_later(wait_s, self.dispatch)
        return True

    def _watch_workers(self, capacity: int) -> None:
        """End the streams when there has been no worker for `worker_wait_s`."""
        if capacity or self._pool.workers(self.target):
            self._stop_no_worker_timer()
        elif self.streams and not self._no_worker_timer:
            loop = asyncio.get_running_loop()
            self._no_worker_timer = loop.call_later(self._config.worker_wait_s, self._fail_without_workers)

    def _stop_no_worker_timer(self) -> None:
        if self._no_worker_timer:
            self._no_worker_timer.cancel()
            self._no_worker_timer = None

    def _fail_without_workers(self) -> None:
        self._no_worker_timer = None
        model, waited_s = self.target.model, self._config.worker_wait_s
        self.fail(NotReady(f"{model.name} {model.version} has had no ready worker for {waited_s:g} s"))

    def _next_call(self) -> WorkerCall | None:
        """Alternate new calls and resumed draws; with interactive work, a bulk draw resumes after INTERACTIVE_CALLS.

        While preempted draws wait, streams with draws in progress start no others, so that their first samples come
        early.
        """
        if not self._has_preempted:
            self._resumed_last, self._calls_before_resumed_bulk = False, 0
            return self._new_call()
        interactive, bulk = self._preempted[Priority.INTERACTIVE], self._preempted[Priority.BULK]
        has_interactive = bool(interactive) or self.streams.has_interactive_demand
        bulk_is_due = (
            self._calls_before_resumed_bulk >= INTERACTIVE_CALLS if has_interactive else not self._resumed_last
        )
        call: WorkerCall | None = None
        if bulk and bulk_is_due:
            call = _pop_wanted(bulk)
        elif interactive and not self._resumed_last:
            call = _pop_wanted(interactive)
        if call is None and self.streams.has_idle:
            call = self._new_call()
        call = call or _pop_wanted(interactive) or _pop_wanted(bulk) or self._new_call()
        self._resumed_last = call is not None and call.is_resumed
        resumes_bulk = call is None or (call.is_resumed and call.leader.work.context.priority is Priority.BULK)
        self._calls_before_resumed_bulk = 0 if resumes_bulk or not bulk else self._calls_before_resumed_bulk + 1
        return call

    def _new_call(self) -> WorkerCall | None:
        """Take the next call's slices from the streams that the fair queue chooses."""
        # A stream that takes samples leaves less of the send buffer to those after it.
        slices = [stream.take(count) for stream, count in self.streams.next_call(self._capacity) if stream.demand]
        for each in slices:
            self._unissued_units -= each.item.count * each.stream.sample_units
            if not each.stream.unissued:
                self.streams.mark_issued(each.stream)
            if each.stream.slices_issued == 1:
                self._metrics.queued(self.target, time.monotonic() - each.stream.opened_s)
        return WorkerCall(slices=slices) if slices else None

    def _capacity(self, leader: SampleStream) -> int:
        """Return how many samples a call led by this stream may hold.

        Draws of many steps that do not fit whole are preempted; the best batch of which one step fits draws them at the
        lowest cost. Other operations are not: where the smallest batch already takes too long, the call may take twice
        that, for many more rows.
        """
        costs, budget_s = self.costs(leader.work.operation), self._budget_s(leader)
        if not leader.work.operation.draws:
            budget_s = max(budget_s, 2 * costs.seconds(costs.smallest * leader.sample_units))
        units = costs.units_within(budget_s)
        within_budget = int(units / leader.sample_units)
        if leader.steps > 1:
            within_budget = max(within_budget, min(costs.granule, int(units / leader.work.row_cost)))
        row_bytes = max(1, leader.work.sample_bytes, leader.work.feed.row_bytes)
        fewest = max(1, min(costs.smallest, _MIN_BATCH_BYTES // row_bytes))
        most = max(fewest, min(within_budget, _CALL_BYTES // row_bytes))
        return most - most % costs.granule if most >= costs.granule else most

    def _budget_s(self, leader: SampleStream) -> float:
        """Return how long a call led by this stream may take."""
        short_s, long_s = self._config.max_batch_ms / 1e3, self._config.bulk_batch_ms / 1e3
        now_s = time.monotonic()
        if self.streams.has_interactive_demand:
            self._short_calls_until_s = now_s + _LINGER_S
        if now_s < self._short_calls_until_s:
            return short_s / CALLS_PER_WORKER  # all calls a worker holds together precede an interactive one
        ramp = min(leader.slices_issued, _RAMP_CALLS) if leader.work.ramp_up else _RAMP_CALLS
        return min(long_s, short_s * float(_RAMP_FACTOR**ramp))

    def _send(self, call: WorkerCall) -> None:
        costs = self.costs(call.leader.work.operation)
        request = call.to_call(self.target, costs, self._budget_s(call.leader))
        self._starting += 1
        self._timing.sent(call, request.cost_s or 0.0, self._pool.workers(self.target), time.monotonic())
        task = asyncio.get_running_loop().create_task(self._execute(call, request))
        self._tasks[task] = call
        task.add_done_callback(partial(self._task_ended, call))

    async def _execute(self, call: WorkerCall, request: Call) -> None:
        started_s, steps = time.monotonic(), call.steps_left
        self._starting -= 1
        reply: Reply | None = None
        try:
            reply = await self._pool.call(request, timeout_s=self._config.worker_timeout_s)
        except NotReady as error:
            self._repeat(call, error)
            return
        except FountServiceError as error:
            call.fail(error)
            return
        finally:
            took_s = time.monotonic() - started_s
            self._timing.ended(call, took_s, reply.compute_s if reply else None)
        self._metrics.called(self.target, call.samples, took_s, reply)
        preempted, work = call.complete(reply), call.leader.work
        if not work.has_given_values:
            units = call.units * (steps - (preempted.steps_left if preempted else 0))
            self.costs(work.operation).learn(units, reply.compute_s)
        if preempted:
            self._preempted[preempted.leader.work.context.priority].append(preempted)

    def _repeat(self, call: WorkerCall, error: NotReady) -> None:
        """Repeat a call that no worker executed.

        A call that loses a second worker is split into its slices, so that one harmful slice does not fail the others.
        """
        self._metrics.repeated(self.target, error.reason)
        if isinstance(error, WorkerBusy):
            self._repeat_later([call], _BUSY_PAUSE_S)
            return
        _log.warning("a call of %d samples is repeated: %s", call.samples, error)
        call.lost += isinstance(error, WorkerLost)
        call.died += isinstance(error, WorkerLost) and error.died
        if call.lost < self._config.worker_attempts:
            single = [WorkerCall(slices=[each], lost=call.lost, died=call.died) for each in call.slices]
            self._repeat_later(single if call.lost > 1 else [call], _RETRY_PAUSE_S * call.lost)
        elif call.died == call.lost:  # these samples end every process that draws them
            call.fail(WorkerFault(f"the worker's process died each of the {call.died} times it drew these samples"))
        else:
            call.fail(error)

    def _repeat_later(self, calls: list[WorkerCall], pause_s: float) -> None:
        def put_back() -> None:
            self._paused -= 1
            self._repeated.extend(calls)
            self._dispatch_or_idle()

        self._paused += 1
        asyncio.get_running_loop().call_later(pause_s, put_back)

    def _task_ended(self, call: WorkerCall, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        error = NotReady("the call was cancelled") if task.cancelled() else task.exception()
        if error:  # an unexpected error ends the streams of this call alone, and is logged where it is answered
            call.fail(error)
        self._dispatch_or_idle()

    def _dispatch_or_idle(self) -> None:
        self.dispatch()
        self._idle(self)


def _pop_wanted(calls: deque[WorkerCall]) -> WorkerCall | None:
    """Return the first call that still has wanted slices, and remove it with those before."""
    while calls:
        call = calls.popleft()
        if call.keep_wanted():
            return call
    return None
