"""Run the items of one call in batches of the few executable sizes, each item with its own outcome.

The work of items and a function that runs one batch enter; each work leaves with its values or its failure. Which rows
share a batch never changes their values (the profile verified that), so the items of a failed batch are run again
one by one, and only the item at fault fails. A batch that ran out of memory is first repeated in smaller sizes. Rows
are split by predicted time (`handlers.execution.batch_plan`); the last batch may be padded.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from handlers.execution.batch_plan import BatchTimes
from handlers.execution.errors import ItemError, is_device_lost, is_out_of_memory
from handlers.execution.pixels import Float32s, Values, find_finite_rows, find_rows_within
from handlers.execution.rows import Rows, concatenate_rows, pad_rows
from handlers.family import Deadline, DeadlinePassed

__all__ = ["BatchRunner", "RowFault", "Work", "fitting_size"]

_LOG = logging.getLogger(__name__)

RowFault = Literal["NOT_FINITE", "OUT_OF_RANGE"]


@dataclass(kw_only=True, eq=False)
class Work:
    """One item of a call: its rows, and its results, which `BatchRunner` fills in.

    Attributes:
        rows: never empty.
        encode: converts (n, ...) finite float32 results into the requested element type; uint8 results are kept.
        value_range: bounds of valid results; None for any.
        next_step: for a preempted draw, the step its results are the states before; None for any other.
        done: rows with results, the first ones.
        values: (n, ...) results; allocated with the first batch.
        failed_rows: rows without a valid result, whose values are zero: NOT_FINITE, or OUT_OF_RANGE for a result beyond
            the card's value range.
        failure: why the item has no values; None when it has.
    """

    rows: Rows
    encode: Callable[[Float32s], Values]
    value_range: tuple[float, float] | None = None
    next_step: int | None = None
    done: int = 0
    values: Values = field(init=False)
    failed_rows: dict[int, RowFault] = field(default_factory=dict)
    failure: ItemError | None = None

    @property
    def waiting(self) -> int:
        """The number of rows that are still to be run."""
        return 0 if self.failure is not None else len(self.rows) - self.done


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Rows `start` to `stop` of one item, within one batch."""

    work: Work
    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        return self.work.rows.take(slice(self.start, self.stop))

    def fail(self, reason: str, message: str) -> None:
        self.work.failure = ItemError(reason, message)

    def store(self, values: Values) -> None:
        """Encode the piece's results, (n, ...), and store them; rows without a valid one are zero."""
        if values.dtype == np.uint8:
            self._write(values)
            return
        work, floats = self.work, np.asarray(values, np.float32)
        if work.next_step is not None:  # states are not checked: the images are when the draw is finished
            self._write(work.encode(floats))
            return
        # NaN and infinity are not within a range, either.
        value_range = work.value_range
        valid = find_finite_rows(floats) if value_range is None else find_rows_within(floats, value_range)
        if valid.all():
            self._write(work.encode(floats))
            return
        mask = valid.reshape(valid.shape + (1,) * (floats.ndim - 1))  # (n,) -> (n, 1, ...)
        encoded = work.encode(np.where(mask, floats, np.float32(0)))
        encoded[~valid] = 0
        self._write(encoded)
        finite = find_finite_rows(floats)
        for row in np.flatnonzero(~valid).tolist():
            fault: RowFault = "OUT_OF_RANGE" if finite[row] else "NOT_FINITE"
            work.failed_rows[self.start + row] = fault

    def _write(self, encoded: Values) -> None:
        if not self.work.done:
            self.work.values = np.zeros((len(self.work.rows), *encoded.shape[1:]), encoded.dtype)
        self.work.values[self.start : self.stop] = encoded
        self.work.done = self.stop


@dataclass(kw_only=True)
class BatchRunner:
    """Runs the items of one call.

    Attributes:
        compute: runs one batch of an executable size; returns (B, ...) float32, or uint8 for transformed images.
        times: the executable sizes and the time of each; updated with every batch when `learns`.
        deadline: of the call.
        request_id: for log lines and messages.
        on_device_lost: called when the process can no longer use its device.
        share: the work of a batch here relative to one that was timed.
        learns: whether batches update `times`; not where values are given, which take no time to draw.
        batch_sizes: executed so far.
        compute_s: seconds of all batches so far.
        first_batch_at: `time.perf_counter()` when the first batch started; None before.
    """

    compute: Callable[[Rows], Values]
    times: BatchTimes
    deadline: Deadline
    request_id: str
    on_device_lost: Callable[[], None]
    share: float = 1.0
    learns: bool = True
    batch_sizes: list[int] = field(default_factory=list)
    compute_s: float = 0.0
    first_batch_at: float | None = None
    _queue: deque[Work] = field(default_factory=deque, init=False)
    _largest: int = field(default=0, init=False)
    _planned: deque[int] = field(default_factory=deque, init=False)

    def run(self, works: Sequence[Work]) -> None:
        """Run all items together, in order; the failure of an item is stored in its work and never raised."""
        self._queue, self._largest = deque(works), self.times.sizes[-1]
        while pieces := self._next_pieces():
            self._run_pieces(pieces)

    def _next_pieces(self) -> list[_Piece]:
        """Take the next waiting rows, from as many items as fill the next planned size."""
        if not self._planned and (waiting := sum(work.waiting for work in self._queue)):
            self._planned.extend(self.times.plan(self._largest).split(waiting))
        # Items that failed since planning only leave the batch less full.
        pieces, free = list[_Piece](), self._planned.popleft() if self._planned else 0
        while self._queue and free:
            work = self._queue[0]
            count = min(work.waiting, free)
            if count:
                pieces.append(_Piece(work=work, start=work.done, stop=work.done + count))
                free -= count
            if count == work.waiting:
                self._queue.popleft()
        return pieces

    def _run_pieces(self, pieces: list[_Piece]) -> None:
        """Run one batch; when it fails, run each of its items alone."""
        try:
            self.deadline.check()
            self._run_batch(pieces)
        except DeadlinePassed as passed:
            for piece in pieces:
                piece.fail("DEADLINE_PASSED", f"{passed}; request with more time")
        except Exception as error:  # noqa: BLE001 - a family may raise anything; co-batched items must not fail with it
            if not (is_out_of_memory(error) and self._retry_smaller(pieces)):
                self._isolate(pieces, error)

    def _run_batch(self, pieces: list[_Piece]) -> None:
        started = time.perf_counter()
        self.first_batch_at = self.first_batch_at or started
        try:
            rows = concatenate_rows([piece.rows for piece in pieces])
            size = fitting_size(self.times.sizes, len(rows))
            self.batch_sizes.append(size)
            values, start = self.compute(pad_rows(rows, size)), 0
            for piece in pieces:
                stop = start + piece.stop - piece.start
                piece.store(values[start:stop])
                start = stop
            if self.learns:
                self.times.observe(size, (time.perf_counter() - started) / self.share)
        finally:
            self.compute_s += time.perf_counter() - started

    def _retry_smaller(self, pieces: list[_Piece]) -> bool:
        """Requeue a batch's rows, to run in smaller sizes for the rest of the call; False when no size is smaller."""
        size = fitting_size(self.times.sizes, sum(piece.stop - piece.start for piece in pieces))
        smaller = [other for other in self.times.sizes if other < size]
        if not smaller:
            return False
        self._largest = min(self._largest, smaller[-1])
        self._planned.clear()
        _LOG.warning("request %r: no memory for a batch of %d; trying %d", self.request_id, size, self._largest)
        for piece in reversed(pieces):
            if piece.work not in self._queue:  # its last rows may wait there
                self._queue.appendleft(piece.work)
        return True

    def _isolate(self, pieces: list[_Piece], error: Exception) -> None:
        """Run the items of a failed batch alone; fail a single item."""
        if len(pieces) > 1:
            _LOG.warning("request %r: a shared batch failed (%r); running its items alone", self.request_id, error)
            for piece in pieces:
                self._run_pieces([piece])
            return
        _LOG.error("request %r: an item failed", self.request_id, exc_info=error)
        if is_device_lost(error):
            self.on_device_lost()
        if is_out_of_memory(error):
            message = "the worker has not enough memory for this item; request fewer rows, or use another worker"
            pieces[0].fail("OUT_OF_MEMORY", message)
        else:
            message = f"the model failed on this item; the worker's log has more under request {self.request_id!r}"
            pieces[0].fail("MODEL_FAILED", message)


def fitting_size(sizes: Sequence[int], count: int) -> int:
    """Find the smallest size that holds `count` rows.

    Raises:
        ValueError: none does.
    """
    for size in sizes:
        if size >= count:
            return size
    raise ValueError(f"{count} rows do not fit a batch of {max(sizes, default=0)}")
