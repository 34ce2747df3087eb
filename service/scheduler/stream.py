"""One stream within the scheduler: the rows still to be issued, in flight, and waiting to be read.

A stream issues slices of itself for worker calls and yields their pieces in order. It never has more than its share of
the `SendBuffer` in flight or not read yet, so a reader that stops pauses its own generation and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from service.calls import Failure, FailureCode, GivenItem, Item, Outcome, RangeItem, SamplerState
from service.config import GatewayConfig
from service.errors import FountServiceError, NotReady, Overloaded, TooLate, WorkerFault
from service.scheduler.work import Piece, Progress, Work

__all__ = ["SampleStream", "SendBuffer", "Slice"]

_WINDOW_SAMPLES = 1 << 14  # of samples so small that bytes would not bound the work done ahead of a reader


class SendBuffer:
    """The memory for results that their readers have not taken yet, of one stream and of all together.

    Half of it is shared by the streams whose readers are fast; the other half is a minimum for each stream, so that
    stopped readers starve no one. It is the flow-control window of every stream.

    Args:
        config: `window_bytes` a stream, `max_unread_bytes` for all of them, `max_streams`.

    Attributes:
        streams: how many streams use it.
        held: bytes reserved by all of them.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._window = config.window_bytes
        self._shared = config.max_unread_bytes // 2
        self._minimum = config.max_unread_bytes // (2 * config.max_streams)
        self.streams = 0
        self.held = 0

    def available(self, held: int) -> int:
        """Return how many more bytes a stream that holds `held` may reserve now; may be 0 or less."""
        share = min(self._window, self._shared // max(1, self.streams))
        return max(min(self._minimum, self._window) - held, min(share - held, self._shared - self.held))


@dataclass(kw_only=True, eq=False)
class Slice:
    """Consecutive rows of one stream that one worker call computes, from row `first` on.

    Attributes:
        result: the rows, or the error in place of them; None until the call has ended.
    """

    stream: SampleStream
    first: int
    item: Item
    result: Piece | BaseException | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether its reader is still there and its deadline has not passed."""
        return self.result is None and not self.stream.is_closed and not self.stream.is_late

    @property
    def state(self) -> SamplerState | None:
        """Where its preempted draw resumes; None before the first step."""
        return self.item.resume_from if isinstance(self.item, RangeItem) else None

    def preempted(self, state: SamplerState) -> bool:
        """Continue from the state of a preempted draw; False if it is of other draws, or no nearer to their end."""
        item, before = self.item, self.state.next_step if self.state else 0
        if not isinstance(item, RangeItem | GivenItem):
            return False
        # otherwise the draw would be resumed for ever
        if len(state.state) != item.count or not before < state.next_step < self.stream.steps:
            return False
        self.item = item.resumed(state)
        self.stream.advance((state.next_step - before) * item.count)
        return True

    def complete(self, outcome: Outcome) -> None:
        """Pass a worker's outcome to the stream."""
        work = self.stream.work
        if isinstance(outcome, Failure):
            self.fail(_failure_to_error(outcome))
        elif isinstance(outcome, SamplerState):
            self.fail(WorkerFault("the worker preempted a draw that was not to be preempted"))
        elif not work.sample_bytes_estimated and outcome.array.nbytes != self.item.count * work.sample_bytes:
            self.fail(WorkerFault("the worker returned rows of another size than requested"))
        else:
            labels = self.item.labels if isinstance(self.item, RangeItem | GivenItem) else None
            failures = dict(outcome.failures)
            steps_left = self.stream.steps - (self.state.next_step if self.state else 0)
            self.stream.advance(steps_left * self.item.count)
            self._end(Piece(start_index=self.first, rows=outcome.array, labels=labels, failures=failures))

    def fail(self, error: BaseException) -> None:
        """Pass an error to the stream in place of the rows."""
        self._end(error)

    def _end(self, result: Piece | BaseException) -> None:
        if self.result is None:
            self.result = result
            self.stream.slice_ended()


class SampleStream:
    """The rows of one `Work` in progress: an async iterator of pieces, in order, for one reader, who closes it.

    Args:
        wake: called when there may be something new to issue.
        closed: called once, when the reader is gone.

    Attributes:
        opened_s: `time.monotonic()` when it was opened.
        slices_issued: how many slices were issued so far.
        in_progress: how many of them have no result yet.
        is_closed: whether its reader is gone.
    """

    def __init__(
        self, work: Work, buffer: SendBuffer, wake: Callable[[], None], closed: Callable[[SampleStream], None]
    ) -> None:
        self.work = work
        self._buffer = buffer
        self._wake, self._closed = wake, closed
        self._next_index = work.start_index
        self._end = work.start_index + work.count
        self._held = 0  # samples in flight or not read yet
        self._read = 0  # samples of the last piece, held until the reader returns for more
        self._slices: deque[Slice] = deque()
        self._waiting: asyncio.Future[None] | None = None  # the reader
        self._error: BaseException | None = None
        self._steps_done = 0  # of all samples
        self._steps_reported = 0
        self.is_closed = False
        self.opened_s = time.monotonic()
        self.slices_issued = 0
        self.in_progress = 0

    @property
    def demand(self) -> int:
        """How many samples could be issued now."""
        remaining = self._end - self._next_index
        if not remaining or self.is_closed or self._error:
            return 0
        if remaining == 1 and not self._held:
            return 1
        size = self.work.sample_bytes
        fitting = min(self._buffer.available(self._held * size) // size, _WINDOW_SAMPLES - self._held)
        # A sample larger than any window is issued alone.
        return max(0, min(remaining, max(fitting, 0 if self._held else 1)))

    @property
    def unissued(self) -> int:
        """How many samples are still to be issued, now or later."""
        return self._end - self._next_index

    @property
    def steps(self) -> int:
        """How many steps its draw takes; of another operation than a draw nothing is preempted."""
        return (self.work.parameters.steps or self.work.draw_steps) if self.work.operation.draws else 1

    @property
    def sample_units(self) -> float:
        """What a whole sample costs, in steps of a sample of the model's own size; see `CostModel`."""
        return self.steps * self.work.row_cost

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return self.work.context.deadline_unix_s is not None and time.time() >= self.work.context.deadline_unix_s

    def take(self, max_samples: int) -> Slice:
        """Issue the next samples, at most `max_samples` of the demand."""
        first, count = self._next_index, min(max_samples, self.demand)
        issued = Slice(stream=self, first=first, item=self.work.feed.part(first, count))
        self._slices.append(issued)
        self._next_index += count
        self._hold(count)
        self.slices_issued += 1
        self.in_progress += 1
        return issued

    def fail(self, error: BaseException) -> None:
        """Issue no more; the reader receives the error after the rows already computed."""
        self._error = self._error or error
        for each in self._slices:
            each.fail(error)
        self.notify()

    def notify(self) -> None:
        """Let the reader look at the first slice, which may have ended."""
        has_progress = self.work.reports_progress and self._steps_done > self._steps_reported
        if self._waiting and not self._waiting.done() and (has_progress or self._next_result() is not None):
            self._waiting.set_result(None)

    def slice_ended(self) -> None:
        """Count a slice that has its result now."""
        self.in_progress -= 1
        self.notify()

    def advance(self, steps: int) -> None:
        """Count steps that were taken, summed over samples."""
        self._steps_done += steps
        self.notify()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece; errors are those of `update`."""
        while isinstance(update := await self.update(), Progress):
            pass
        if update is None:
            raise StopAsyncIteration
        return update

    async def update(self) -> Piece | Progress | None:
        """Return the next piece, or progress made since the last one if the work reports it; None at the end.

        Raises:
            FountServiceError: the rest cannot be computed.
        """
        self._hold(-self._read)  # only when the reader returns for more has the piece left this process
        self._read = 0
        if self._next_index == self._end and not self._slices:
            return None
        self._wake()
        while (result := self._next_result()) is None:
            if self.work.reports_progress and self._steps_done > self._steps_reported:
                self._steps_reported = self._steps_done
                return Progress(steps_done=self._steps_done, steps_total=self.steps * self.work.count)
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if isinstance(result, BaseException):
            raise result
        self._read = self._slices.popleft().item.count
        return result

    def close(self) -> None:
        """End it: its reader is gone. Rows that were not sent to a worker are never computed."""
        if self.is_closed:
            return
        self.is_closed = True
        self._slices.clear()
        self._hold(-self._held)
        self._closed(self)

    def _next_result(self) -> Piece | BaseException | None:
        return self._slices[0].result if self._slices else self._error

    def _hold(self, samples: int) -> None:
        self._held += samples
        self._buffer.held += samples * self.work.sample_bytes


def _failure_to_error(failure: Failure) -> FountServiceError:
    """Return the error of a stream whose whole slice a worker refused."""
    if failure.code == FailureCode.RESOURCE_EXHAUSTED:
        return Overloaded(failure.message, retry_after_s=1.0)
    kinds: dict[int, type[FountServiceError]] = {
        FailureCode.DEADLINE_EXCEEDED: TooLate,
        FailureCode.UNAVAILABLE: NotReady,
    }
    return kinds.get(failure.code, WorkerFault)(failure.message)
