"""Batches: rows of many items packed into the few shapes that may be executed, each item with its own outcome.

Enters: items in order and a function that runs one batch. Leaves: one outcome an item, values row for row. Which rows
share a batch never shows in the values (that is what the profile measured), so a batch that fails may be run again item
by item, and only the item at fault pays; one for which memory ran out is first run again in smaller sizes. Rows are cut
into batches by the time these are predicted to take (`handlers.execution.batch_plan`); the last may be padded.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from google.rpc import code_pb2, status_pb2
from numpy.typing import NDArray

from handlers.execution.batch_plan import BatchTimes
from handlers.execution.errors import is_device_lost, is_out_of_memory
from handlers.execution.pixels import Float32s, Values, find_finite_rows, find_rows_within
from handlers.execution.rows import Rows, concatenate_rows, pad_rows
from handlers.family import Deadline, DeadlinePassed
from handlers.statuses import status_of

__all__ = ["BatchRunner", "Outcome", "RowFault", "Work", "fitting_size"]

_LOG = logging.getLogger(__name__)

RowFault = Literal["NOT_FINITE", "OUT_OF_RANGE"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One item to be done.

    Attributes:
        rows: what it asks for; never empty.
        encode: turns (n, ...) finite float32 results into the element type asked for; results that are bytes stay.
        value_range: the ends results must lie within; None for any.
        next_step: for a draw that is cut, the step its results are the states before; 0 for any other.
    """

    rows: Rows
    encode: Callable[[Float32s], Values]
    value_range: tuple[float, float] | None = None
    next_step: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What became of an item: values, or why there are none.

    Attributes:
        values: (n, ...) results; None before the first batch.
        failed_rows: rows whose result cannot be given, whose values are zero, and the reason: NOT_FINITE, or
            OUT_OF_RANGE for one beyond the range that the card promises.
        failure: why there is no value; None when there is.
        next_step: as in its work.
    """

    values: Values | None = None
    failed_rows: dict[int, RowFault] = field(default_factory=dict)
    failure: status_pb2.Status | None = None
    next_step: int = 0


@dataclass(kw_only=True)
class _Progress:
    work: Work
    outcome: Outcome
    done: int = 0

    @property
    def waiting(self) -> int:
        return 0 if self.outcome.failure is not None else len(self.work.rows) - self.done


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Rows `start` to `stop` of one item, within one batch."""

    progress: _Progress
    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        return self.progress.work.rows.take(slice(self.start, self.stop))


@dataclass(kw_only=True)
class BatchRunner:
    """Runs the items of one call.

    Attributes:
        compute: runs one batch of an executed size; (B, ...) float32, or uint8 of images that were transformed.
        times: the sizes that may be executed, and how long each takes; learns from every batch.
        deadline: when the answer stops being wanted.
        request_id: ties log lines to the call.
        on_device_lost: called when only a new process can go on.
        share: how much of what a batch was timed by it does here.
        batch_sizes: grows by each executed size.
        compute_s: grows by the seconds of each batch.
        first_batch_at: `time.perf_counter()` when the first batch began; None before.
    """

    compute: Callable[[Rows], Values]
    times: BatchTimes
    deadline: Deadline
    request_id: str
    on_device_lost: Callable[[], None]
    share: float = 1.0
    batch_sizes: list[int] = field(default_factory=list)
    compute_s: float = 0.0
    first_batch_at: float | None = None
    _queue: deque[_Progress] = field(default_factory=deque, init=False)
    _largest: int = field(default=0, init=False)
    _cut: deque[int] = field(default_factory=deque, init=False)

    def run(self, works: Sequence[Work]) -> list[Outcome]:
        """Do all items, in order, together.

        Returns:
            One outcome an item; nothing is raised for what goes wrong with one.
        """
        progresses = [_Progress(work=work, outcome=Outcome(next_step=work.next_step)) for work in works]
        self._queue, self._largest = deque(progresses), self.times.sizes[-1]
        while pieces := _next_pieces(self._queue, self._next_size()):
            self._run_pieces(pieces)
        return [progress.outcome for progress in progresses]

    def _next_size(self) -> int:
        """Give the size of the next batch; 0 when nothing waits. Items that failed since only leave room in it."""
        if not self._cut:
            waiting = sum(progress.waiting for progress in self._queue)
            self._cut.extend(self.times.plan(self._largest).cut(waiting))
        return self._cut.popleft() if self._cut else 0

    def _run_pieces(self, pieces: list[_Piece]) -> None:
        """Run one batch; when it fails, each of its items alone."""
        try:
            self.deadline.check()
            self._run_batch(pieces)
        except DeadlinePassed as passed:
            for piece in pieces:
                _fail(piece, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_PASSED", f"{passed}; ask with more time")
        except Exception as error:  # noqa: BLE001 - a family may raise anything; its mates must not pay
            if not (is_out_of_memory(error) and self._shrink(pieces)):
                self._blame(pieces, error)

    def _shrink(self, pieces: list[_Piece]) -> bool:
        """Put a batch's rows back, to be run in smaller sizes for the rest of the call; False when none is smaller."""
        size = fitting_size(self.times.sizes, sum(piece.stop - piece.start for piece in pieces))
        smaller = [other for other in self.times.sizes if other < size]
        if not smaller:
            return False
        self._largest = min(self._largest, smaller[-1])
        self._cut.clear()
        _LOG.warning("request %r: no memory for a batch of %d; trying %d", self.request_id, size, self._largest)
        for piece in reversed(pieces):
            if not any(waiting is piece.progress for waiting in self._queue):  # its last rows may wait there
                self._queue.appendleft(piece.progress)
        return True

    def _blame(self, pieces: list[_Piece], error: Exception) -> None:
        if len(pieces) > 1:
            _LOG.warning("request %r: a shared batch failed (%r); running its items alone", self.request_id, error)
            for piece in pieces:
                self._run_pieces([piece])
            return
        _LOG.error("request %r: an item failed", self.request_id, exc_info=error)
        if is_device_lost(error):
            self.on_device_lost()
        if is_out_of_memory(error):
            message = (
                "the worker has not enough memory for a batch of this item; ask for fewer rows, or serve it elsewhere"
            )
            _fail(pieces[0], code_pb2.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", message)
        else:
            message = f"the model failed on this item; the worker's log has more under request {self.request_id!r}"
            _fail(pieces[0], code_pb2.INTERNAL, "MODEL_FAILED", message)

    def _run_batch(self, pieces: list[_Piece]) -> None:
        started = time.perf_counter()
        self.first_batch_at = self.first_batch_at or started
        try:
            rows = concatenate_rows([piece.rows for piece in pieces])
            size = fitting_size(self.times.sizes, len(rows))
            self.batch_sizes.append(size)
            _keep(pieces, self.compute(pad_rows(rows, size)))
            self.times.observe(size, (time.perf_counter() - started) / self.share)
        finally:
            self.compute_s += time.perf_counter() - started


def fitting_size(sizes: Sequence[int], count: int) -> int:
    """Find the smallest size that holds `count` rows.

    Raises:
        ValueError: none does.
    """
    for size in sizes:
        if size >= count:
            return size
    raise ValueError(f"{count} rows do not fit a batch of {max(sizes, default=0)}")


def _next_pieces(queue: deque[_Progress], most: int) -> list[_Piece]:
    """Take the next rows that wait, from as many items as fill a batch of `most`; items taken whole leave the queue."""
    pieces, room = [], most
    while queue and room:
        progress = queue[0]
        count = min(progress.waiting, room)
        if count:
            pieces.append(_Piece(progress=progress, start=progress.done, stop=progress.done + count))
            room -= count
        if count == progress.waiting:
            queue.popleft()
    return pieces


def _keep(pieces: list[_Piece], values: Values) -> None:
    """Cut a batch's results (B, ...) apart."""
    place = 0
    for piece in pieces:
        count = piece.stop - piece.start
        part = values[place : place + count]
        if part.dtype == np.uint8:
            _put(piece, part)
        else:
            _keep_piece(piece, np.asarray(part, np.float32))
        place += count


def _put(piece: _Piece, encoded: Values) -> None:
    """Put results of a piece (n, ...) where they belong."""
    work, outcome = piece.progress.work, piece.progress.outcome
    if outcome.values is None:
        outcome.values = np.zeros((len(work.rows), *encoded.shape[1:]), encoded.dtype)
    outcome.values[piece.start : piece.stop] = encoded
    piece.progress.done = piece.stop


def _keep_piece(piece: _Piece, floats: Float32s) -> None:
    """Encode the results of a piece (n, ...), and put zeros for rows that cannot be given."""
    work, outcome = piece.progress.work, piece.progress.outcome
    # A state is carried on as it is: whether it comes to anything is seen when the draw is through.
    finite = np.ones(len(floats), np.bool_) if work.next_step else find_finite_rows(floats)
    good = finite if work.value_range is None else finite & find_rows_within(floats, work.value_range)
    encoded = work.encode(np.where(_widen(good, floats), floats, np.float32(0)))
    encoded[~good] = 0
    _put(piece, encoded)
    for row in np.flatnonzero(~good).tolist():
        outcome.failed_rows[piece.start + row] = "OUT_OF_RANGE" if finite[row] else "NOT_FINITE"


def _widen(good: NDArray[np.bool_], floats: Float32s) -> NDArray[np.bool_]:
    return good.reshape(good.shape + (1,) * (floats.ndim - 1))  # (n,) -> (n, 1, ...)


def _fail(piece: _Piece, code: int, reason: str, message: str) -> None:
    piece.progress.outcome.failure = status_of(code, reason, message)
