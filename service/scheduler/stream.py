"""One stream within the scheduler: what is still to be issued, what is out, what waits to be read.

A stream hands out slices of itself to be packed and yields their pieces in order. It never has more than its share of
`SendBuffer` out or unread, so a reader that stops stops its own generation and nobody else's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from google.rpc import code_pb2

from service.domain import Carry, Failure, Item, Outcome, RangeItem, Rows
from service.errors import FountServiceError, NotReady, Overloaded, TooLate, WorkerFault
from service.scheduler import Piece, Work
from service.scheduler.admission import SendBuffer

__all__ = ["SampleStream", "Slice"]

_WINDOW_SAMPLES = 1 << 14  # of samples so small that bytes would not bound the work done ahead of a reader


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """Consecutive rows of one stream, done by one call, from row `first` on."""

    stream: SampleStream
    first: int
    item: Item
    done: asyncio.Future[Piece]

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it: its reader is there, and its deadline has not passed."""
        return not self.done.done() and not self.stream.is_closed and not self.stream.is_late

    @property
    def carry(self) -> Carry | None:
        """Where an earlier call left its draw; None when it begins."""
        return self.item.carry if isinstance(self.item, RangeItem) else None

    def cut(self, item: RangeItem, carry: Carry) -> Slice:
        """The rest of this slice's draw; the stream waits for it as for the whole."""
        return replace(self, item=replace(item, carry=carry))

    def settle(self, outcome: Outcome) -> None:
        """Give the stream what a worker answered for this slice."""
        if isinstance(outcome, Failure):
            self.fail(_failure_to_error(outcome))
        elif isinstance(outcome, Carry):
            self.fail(WorkerFault("the worker cut a draw that was not to be cut"))
        elif not self._has_its_size(outcome):
            self.fail(WorkerFault("the worker answered rows of another size than was asked for"))
        elif not self.done.done():
            labels = self.item.labels if isinstance(self.item, RangeItem) else None
            failures = dict(outcome.failures)
            self.done.set_result(Piece(start_index=self.first, rows=outcome.array, labels=labels, failures=failures))

    def _has_its_size(self, rows: Rows) -> bool:
        work = self.stream.work
        return work.is_guessed or rows.array.nbytes == self.item.count * work.sample_bytes

    def fail(self, error: BaseException) -> None:
        """Give the stream an error in place of this slice."""
        if not self.done.done():
            self.done.set_exception(error)

    def drop(self) -> None:
        """Forget the slice: nobody will read it."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()  # an error nobody waits for is not to be logged as forgotten


class SampleStream:
    """The rows of one `Work`, on their way.

    Args:
        work: what to do.
        unread: the room all streams share.
        wake: called when there may be something new to issue.

    Attributes:
        began_s: when it was opened, `time.monotonic()`.
        slices_issued: how many slices were taken so far.
    """

    def __init__(self, work: Work, unread: SendBuffer, wake: Callable[[], None]) -> None:
        self.work = work
        self._unread = unread
        self._wake = wake
        self._next_index = work.start_index
        self._end = work.start_index + work.count
        self._held = 0  # samples out or unread
        self._slices: deque[Slice] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._closed = False
        self.began_s = time.monotonic()
        self.slices_issued = 0
        unread.streams += 1

    @property
    def demand(self) -> int:
        """How many samples could be issued now."""
        left = self._end - self._next_index
        if not left or self._closed or self._error:
            return 0
        size = self.work.sample_bytes
        room = min(self._unread.left_for(self._held * size) // size, _WINDOW_SAMPLES - self._held)
        return max(0, min(left, max(room, 0 if self._held else 1)))  # a sample larger than any window goes alone

    @property
    def unissued(self) -> int:
        """How many samples are still to be issued, now or later."""
        return self._end - self._next_index

    @property
    def is_closed(self) -> bool:
        """True once nobody reads it any more."""
        return self._closed

    @property
    def is_late(self) -> bool:
        """True once its deadline has passed."""
        return self.work.deadline_unix_s is not None and time.time() >= self.work.deadline_unix_s

    def take(self, most: int) -> Slice:
        """Issue the next samples, at most `most` of the demand."""
        first, count = self._next_index, min(most, self.demand)
        item = self.work.feed.item(first, count)
        piece = Slice(stream=self, first=first, item=item, done=asyncio.get_running_loop().create_future())
        self._slices.append(piece)
        self._next_index += count
        self._hold(count)
        self.slices_issued += 1
        self._changed.set()
        return piece

    def fail(self, error: BaseException) -> None:
        """Issue no more; the error comes after what was already drawn."""
        self._error = self._error or error
        for each in self._slices:
            each.fail(error)
        self._changed.set()

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield pieces in order; closing it ends the stream."""
        read = self.work.start_index
        try:
            while read < self._end:
                self._wake()
                piece = await (await self._head()).done
                count = self._slices.popleft().item.count
                yield piece
                read += count
                self._hold(-count)  # only now: the reader came back, so the piece has left this process's hands
        finally:
            self.close()

    def close(self) -> None:
        """End it: nobody reads it any more."""
        if self._closed:
            return
        self._closed = True
        for each in self._slices:
            each.drop()
        self._slices.clear()
        self._hold(-self._held)
        self._unread.streams -= 1
        self._wake()

    def _hold(self, samples: int) -> None:
        self._held += samples
        self._unread.held += samples * self.work.sample_bytes

    async def _head(self) -> Slice:
        while not self._slices:
            if self._error:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._slices[0]


def _failure_to_error(failure: Failure) -> FountServiceError:
    """What a stream ends with when a worker refuses a whole slice."""
    if failure.code == code_pb2.RESOURCE_EXHAUSTED:
        return Overloaded(failure.message, retry_after_s=1.0)
    kinds = {code_pb2.DEADLINE_EXCEEDED: TooLate, code_pb2.UNAVAILABLE: NotReady}
    return kinds.get(failure.code, WorkerFault)(failure.message)
