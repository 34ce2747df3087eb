"""The inference client: sample, classify, embed or transform whole arrays on workers, by way of the scheduler.

An array enters and becomes one stream of work, which the scheduler batches with that of other requests; the result
leaves as one array, in order. When the scheduler refuses a stream because of too much other work, the client retries
after the time given in the refusal, so that a long pull continues through a busy gateway.

Every array in progress counts as one stream in `GatewayConfig.max_streams` and `CallerLimits.max_streams`.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    Dtype,
    Failure,
    Item,
    Labels,
    ManipulationItem,
    ModelKey,
    Operation,
    Parameters,
    RangeItem,
    ServedModel,
    Target,
    TensorItem,
)
from service.errors import Overloaded, TooLate, WorkerFault
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.work import Piece, RequestContext, Work

__all__ = ["DrawnSamples", "InferenceClient"]

_RETRY_LIMIT_S = 300.0  # of refusals without a row in between
_ESTIMATED_FEATURES = 512  # of a model that has not embedded anything yet: bounds the bytes in flight
_MAX_KNOWN_WIDTHS = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnSamples:
    """Samples that a generator drew.

    Attributes:
        images: (n, H, W, C) uint8, failed ones zero.
        failures: by row.
    """

    images: NDArray[np.uint8]
    failures: dict[int, Failure]


class InferenceClient:
    """Run models on workers.

    Every method raises:
        Overloaded: too much work waits, and the context does not allow a retry, or its deadline or 300 s would pass.
        NotReady: the target's workers are gone, and retries failed.
        TooLate: the deadline passed.
        WorkerFault: a worker returned an invalid result.
    """

    def __init__(self, scheduler: BatchingScheduler) -> None:
        self._scheduler = scheduler
        self._widths: dict[ModelKey, int] = {}  # features of models that have embedded

    async def sample(
        self,
        target: Target,
        model: ServedModel,
        *,
        seed: int,
        indices: NDArray[np.uint64],
        labels: Labels | None,
        parameters: Parameters,
        context: RequestContext,
    ) -> DrawnSamples:
        """Draw the samples at (seed, each index).

        Args:
            target: the workers that may serve it.
            model: what they serve.
            seed: of all samples.
            indices: (n,) uint64, in any order.
            labels: (n,) uint32, the generator's class ids; None for an unconditional one.
            parameters: of the draw, complete: no defaults are filled in here.
            context: on whose behalf.
        """
        item = RangeItem(
            seed=seed, start_index=0, count=len(indices), labels=labels, dtype=Dtype.UINT8, indices=indices
        )
        work = _work(target, Operation.SAMPLE, item, model.sample_bytes(Dtype.UINT8), context)
        result = _Result(count=item.count, dtype=np.dtype(np.uint8), dims=model.sample_dims)
        await self._fill(result, replace(work, parameters=parameters), context)
        return DrawnSamples(images=result.rows(), failures=result.failures)

    async def classify(
        self, target: Target, model: ServedModel, images: NDArray[np.uint8], context: RequestContext
    ) -> NDArray[np.float32]:
        """Classify (n, H, W, C) uint8 images of the model's own shape.

        Returns:
            (n, classes) float32 probabilities; NaN where the worker failed on a row.
        """
        classes = len(model.labels)
        row_bytes = classes * Dtype.FLOAT32.numpy.itemsize
        work = _work(target, Operation.CLASSIFY, TensorItem(rows=images), row_bytes, context)
        result = _Result(count=len(images), dtype=np.dtype(np.float32), dims=(classes,))
        await self._fill(result, work, context)
        return result.rows_or_nan()

    async def embed(
        self, target: Target, model: ServedModel, images: NDArray[np.uint8], context: RequestContext
    ) -> NDArray[np.float32]:
        """Embed (n, H, W, C) uint8 images of the model's own shape.

        The number of features is taken from the first rows that arrive, since no model card contains it.

        Returns:
            (n, features) float32; NaN where the worker failed on a row. Without images: (0, 0).
        """
        width = self._widths.get(model.key)
        row_bytes = (width or _ESTIMATED_FEATURES) * Dtype.FLOAT32.numpy.itemsize
        work = _work(target, Operation.EMBED, TensorItem(rows=images), row_bytes, context)
        dims = None if width is None else (width,)
        result = _Result(count=len(images), dtype=np.dtype(np.float32), dims=dims)
        await self._fill(result, replace(work, sample_bytes_estimated=width is None), context)
        features = result.rows_or_nan()
        if len(images):
            if len(self._widths) >= _MAX_KNOWN_WIDTHS:
                self._widths.clear()
            self._widths[model.key] = features.shape[1]
        return features

    async def transform(
        self,
        target: Target,
        model: ServedModel,
        images: NDArray[np.uint8],
        table: NDArray[np.float32],
        *,
        seed: int,
        indices: NDArray[np.uint64],
        context: RequestContext,
    ) -> NDArray[np.uint8]:
        """Transform (n, H, W, C) uint8 images, of any shape, by the parameters in the rows of (n, columns) `table`.

        Noise is drawn at (seed, each index). Also raises WorkerFault when the worker failed on a single row.
        """
        item = ManipulationItem(rows=images, table=table, seed=seed, indices=indices)
        row_bytes = math.prod(images.shape[1:])
        work = _work(target, Operation.TRANSFORM, item, row_bytes, context)
        result = _Result(count=len(images), dtype=np.dtype(np.uint8), dims=images.shape[1:])
        # The card's shape is what warm-up measured; a smaller image is not counted as cheaper.
        cost = max(1.0, row_bytes / model.sample_bytes(Dtype.UINT8))
        await self._fill(result, replace(work, row_cost=cost), context)
        for row, failure in result.failures.items():
            raise WorkerFault(f"row {row} could not be transformed: {failure.message}")
        return result.rows()

    async def _fill(self, result: _Result, work: Work, context: RequestContext) -> None:
        """Run a work to its end."""
        done, progress_s = 0, time.monotonic()
        try:
            async with asyncio.timeout(context.remaining_s):
                while done < work.count:
                    rest = replace(work, start_index=done, count=work.count - done)
                    try:
                        async with aclosing(self._scheduler.run(rest)) as pieces:
                            async for piece in pieces:
                                done += result.put(piece)
                                progress_s = time.monotonic()
                    except Overloaded as error:
                        remaining_s, may_retry = context.remaining_s, context.retry_overloaded or done > 0
                        in_time = remaining_s is None or remaining_s > error.retry_after_s
                        if not (may_retry and in_time) or time.monotonic() - progress_s > _RETRY_LIMIT_S:
                            raise
                        await asyncio.sleep(error.retry_after_s)
        except TimeoutError as error:
            message = f"{done} of {work.count} rows were done when the deadline passed; allow more time"
            raise TooLate(message) from error


@dataclass(kw_only=True, eq=False)
class _Result:
    """The array that pieces fill.

    Attributes:
        count: its rows.
        dtype: of its elements.
        dims: of a row; None: one number, which the first piece determines.
        failures: by row.
    """

    count: int
    dtype: np.dtype[Any]
    dims: tuple[int, ...] | None
    failures: dict[int, Failure] = field(default_factory=dict)
    _rows: NDArray[Any] | None = None

    def rows(self) -> NDArray[Any]:
        """Return all rows; those that did not arrive are zero."""
        if self._rows is None:
            self._rows = np.zeros((self.count, *((0,) if self.dims is None else self.dims)), self.dtype)
        return self._rows

    def rows_or_nan(self) -> NDArray[np.float32]:
        """Return all rows, NaN where the worker failed."""
        rows: NDArray[np.float32] = self.rows()
        rows[list(self.failures)] = np.nan
        return rows

    def put(self, piece: Piece) -> int:
        """Store a piece at its place; return its number of rows."""
        first, count, dims = piece.start_index, len(piece.rows), piece.rows.shape[1:]
        if self.dims is None and len(dims) == 1:
            self.dims = dims
        if piece.rows.dtype != self.dtype or dims != self.dims:
            expected = "one number of features" if self.dims is None else list(self.dims)
            raise WorkerFault(
                f"the worker returned {piece.rows.dtype.name} rows of {list(dims)}, "
                f"and {self.dtype.name} rows of {expected} were requested"
            )
        self.rows()[first : first + count] = piece.rows
        self.failures |= {first + row: failure for row, failure in piece.failures.items()}
        return count


def _work(target: Target, operation: Operation, item: Item, sample_bytes: int, context: RequestContext) -> Work:
    return Work(
        target=target,
        operation=operation,
        feed=item,
        count=item.count,
        sample_bytes=sample_bytes,
        context=context,
        ramp_up=False,
    )
