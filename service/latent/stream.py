"""A stream of given rows: rows enter as they are read, pieces of results leave in order.

No more rows are read while a window of rows and results is not taken, so a client that sends faster than it reads is
slowed down, and memory does not grow.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.calls import Labels
from service.domain import Dtype, Encoding, Priority, ServedModel, Target
from service.errors import InvalidRequest, Violation
from service.latent.tasks import Batch, Interpolate, Score, Task, Translate, WorkerAccess
from service.read_ahead import map_in_order
from service.scheduler.inference import InferenceClient
from service.scheduler.work import Piece, RequestContext

__all__ = ["GivenStream", "ReceivedRows", "pair_rows", "results"]

_MOST_OUTPUTS, _BATCH_BYTES = 2048, 1 << 20  # made together
_LEAST_BYTES = 1 << 16  # that a batch counts in the window, however small
_BATCH_S, _WINDOW_S = 2.0, 8.0  # of one worker: results arrive steadily, although batches take turns


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenStream:
    """A resolved config.

    Attributes:
        model: whose rows they are.
        target: its workers.
        task: what is computed of each row.
        seed: of noise.
        start_index: the number of the first row, or pair.
        row_shape: of a row that is sent.
        output_dims: of a result.
        encoding: of results.
        label: of every row; None: rows name their own, or have none.
        priority: of worker calls.
    """

    model: ServedModel
    target: Target
    task: Task
    seed: int
    start_index: int
    row_shape: tuple[int, ...]
    output_dims: tuple[int, ...]
    encoding: Encoding
    label: int | None
    priority: Priority

    @property
    def dtype(self) -> Dtype:
        """What workers send."""
        return Dtype.FLOAT32 if self.encoding is Encoding.FLOAT32 else Dtype.UINT8

    @property
    def output_bytes(self) -> int:
        """Bytes of one result."""
        return math.prod(self.output_dims) * self.dtype.numpy.itemsize


@dataclass(frozen=True, kw_only=True, eq=False)
class ReceivedRows:
    """The rows of one message.

    Attributes:
        first_row: number of the first, or of the first pair.
        rows: (n, *row_shape) uint8 or float32, read-only; of pairs (n, 2, *row_shape).
        labels: (n,) uint32; None: they have none.
    """

    first_row: int
    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None


_Job = tuple[ReceivedRows, range]
"""Received rows, and some of their outputs, counted from the first output of the first row."""


def results(
    stream: GivenStream,
    received: AsyncGenerator[ReceivedRows],
    inference: InferenceClient,
    context: RequestContext,
    window_bytes: int,
) -> AsyncGenerator[Piece]:
    """Compute the results of rows, in order; closing the generator ends the work on them.

    Raises:
        Overloaded, NotReady, TooLate, WorkerFault: as `InferenceClient`. An error of `received` is raised after the
            results of the rows before it.
    """
    rows = pair_rows(received, stream) if isinstance(stream.task, Interpolate) else received

    def seconds() -> float:
        if isinstance(stream.task, Score):
            return inference.seconds_to_score(stream.target, stream.model, stream.task.parameters)
        if isinstance(stream.task, Translate):
            return inference.seconds_to_translate(stream.target, stream.model, stream.task.parameters)
        return 0.0  # no other operation takes long

    async def make(job: _Job) -> Piece:
        part, outputs = job
        is_first = part.first_row == stream.start_index and not outputs.start
        own_context = replace(context, retry_overloaded=context.retry_overloaded or not is_first)
        return await _make(stream, part, outputs, inference, own_context)

    def size(job: _Job) -> int:
        part, outputs = job
        given_bytes = part.rows.nbytes // (len(part.rows) * stream.task.factor)  # that each output keeps in memory
        of_time = round(window_bytes * min(1.0, len(outputs) * seconds() / _WINDOW_S))
        return max(_LEAST_BYTES, len(outputs) * (stream.output_bytes + given_bytes), of_time)

    return map_in_order(_jobs(stream, rows, seconds), make, size=size, window=window_bytes)


async def pair_rows(received: AsyncGenerator[ReceivedRows], stream: GivenStream) -> AsyncGenerator[ReceivedRows]:
    """Join consecutive rows to pairs, (n, 2, ...), also across messages.

    Raises:
        InvalidRequest: the rows of a pair differ in element type or label, or the last one has no second row.
    """
    pairs, waiting = stream.start_index, None  # the first row of a pair whose second has not come
    async with aclosing(received):
        async for each in received:
            rows, labels = each.rows, each.labels
            if waiting is not None:
                _check_pair(waiting, each)
                rows = np.concatenate([waiting.rows, rows])
                labels = None if labels is None or waiting.labels is None else np.concatenate([waiting.labels, labels])
            whole = len(rows) // 2
            waiting = None
            if len(rows) % 2:
                last = None if labels is None else labels[-1:]
                waiting = ReceivedRows(first_row=pairs + whole, rows=rows[-1:], labels=last)
            if not whole:
                continue
            firsts = None if labels is None else labels[: 2 * whole : 2]
            if labels is not None and not np.array_equal(labels[: 2 * whole : 2], labels[1 : 2 * whole : 2]):
                _refuse("rows.labels", "the two rows of a pair must have one label")
            shaped = rows[: 2 * whole].reshape(whole, 2, *rows.shape[1:])  # (2n, ...) -> (n, 2, ...)
            yield ReceivedRows(first_row=pairs, rows=shaped, labels=firsts)
            pairs += whole
    if waiting is not None:
        _refuse("rows", f"the last row, the first of pair {pairs}, has no second row; send an even number of rows")


def _check_pair(first: ReceivedRows, second: ReceivedRows) -> None:
    if first.rows.dtype != second.rows.dtype:
        _refuse("rows.dtype", "the two rows of a pair must have one element type")
    if (first.labels is None) != (second.labels is None):
        _refuse("rows.labels", "the two rows of a pair must both have a label, or neither")


def _refuse(field: str, description: str) -> None:
    raise InvalidRequest((Violation(field=field, description=description),))


async def _jobs(
    stream: GivenStream, received: AsyncGenerator[ReceivedRows], seconds: Callable[[], float]
) -> AsyncGenerator[_Job]:
    """Cut the outputs of rows into batches, by what an output is expected to take now."""
    most = max(1, min(_MOST_OUTPUTS, _BATCH_BYTES // max(1, stream.output_bytes)))
    async with aclosing(received):
        async for rows in received:
            first, count = 0, len(rows.rows) * stream.task.factor
            while first < count:
                affordable = _BATCH_S / max(seconds(), _BATCH_S / most)
                last = min(first + max(1, int(affordable)), count)
                yield rows, range(first, last)
                first = last


async def _make(
    stream: GivenStream, received: ReceivedRows, outputs: range, inference: InferenceClient, context: RequestContext
) -> Piece:
    factor = stream.task.factor
    first, last = outputs.start // factor, (outputs.stop - 1) // factor + 1  # rows that are needed
    numbers = np.arange(outputs.start, outputs.stop)
    batch = Batch(
        rows=received.rows[first:last],
        labels=None if received.labels is None else received.labels[first:last],
        row_indices=np.arange(last - first, dtype=np.uint64) + np.uint64(received.first_row + first),
        places=numbers // factor - first,
        steps=numbers % factor,
        indices=np.uint64(received.first_row * factor) + numbers.astype(np.uint64),
    )
    access = WorkerAccess(
        inference=inference,
        target=stream.target,
        model=stream.model,
        seed=stream.seed,
        dtype=stream.dtype,
        context=context,
    )
    rows, failures = await stream.task.run(batch, access)
    labels = batch.output_labels
    return Piece(start_index=int(batch.indices[0]), rows=rows, labels=labels, failures=failures)
