"""Whole arrays through the scheduler: draw these samples, classify, embed or transform these images.

An array enters and is one stream of work: the scheduler cuts it, packs it with others' work, repeats what workers lose,
and runs as many slices at once as there is room for. The answers leave as one array, in order. What keeps a whole pull
going also lives here: a stream that is refused because others wait comes again when it was told to.

Every array is a stream of its own and counts as one in `GatewayConfig.max_streams` and `CallerLimits.max_streams` while
it is under way. A pull has a few at a time; patience, not a larger limit, is what carries it through a full gateway.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.caller import Caller
from service.domain import Dtype, Failure, Labels, ModelKey, Operation, Parameters, ServedModel, Target
from service.errors import Overloaded, TooLate, WorkerFault
from service.scheduler import Piece, Scheduler, Work
from service.scheduler.feeds import Feed, IndexFeed, ManipulationFeed, TensorFeed

__all__ = ["DrawnSamples", "InferenceClient", "RequestContext"]

_PATIENCE_S = 300.0  # that refusals are waited out without a row between them
_GUESSED_FEATURES = 512  # of a model that has not embedded anything yet: a measure of what is on its way
_WIDTHS_KEPT = 1024


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """On whose behalf.

    Attributes:
        caller: who asks.
        deadline_unix_s: when the answer stops being wanted; None is never.
        request_id: for logs.
        urgent: somebody sits waiting.
        patient: come again when the gateway is too laden to begin. False raises then, as the first work of a request
            should; work that has begun always comes again.
    """

    caller: Caller
    deadline_unix_s: float | None = None
    request_id: str = ""
    urgent: bool = False
    patient: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnSamples:
    """Samples.

    Attributes:
        images: (n, H, W, C) uint8, failed ones zero.
        failures: by row.
    """

    images: NDArray[np.uint8]
    failures: dict[int, Failure]


@dataclass(kw_only=True, eq=False)
class _Whole:
    """The array that pieces fill.

    Attributes:
        count: its rows.
        dtype: of its elements.
        dims: of a row; None: a number that the first piece tells.
    """

    count: int
    dtype: np.dtype[Any]
    dims: tuple[int, ...] | None
    _rows: NDArray[Any] | None = None

    def array(self) -> NDArray[Any]:
        """All of it, rows that never came zero."""
        if self._rows is None:
            self._rows = np.zeros((self.count, *((0,) if self.dims is None else self.dims)), self.dtype)
        return self._rows

    def put(self, piece: Piece, failures: dict[int, Failure]) -> int:
        """Put a piece in its place; returns how many rows it is."""
        first, count, dims = piece.start_index, len(piece.rows), piece.rows.shape[1:]
        if self.dims is None and len(dims) == 1:
            self.dims = dims
        if piece.rows.dtype != self.dtype or dims != self.dims:
            wanted = "one number of features" if self.dims is None else list(self.dims)
            told = f"{piece.rows.dtype.name} rows of {list(dims)}"
            raise WorkerFault(f"the worker answered {told}, where {self.dtype.name} rows of {wanted} were asked for")
        self.array()[first : first + count] = piece.rows
        failures |= {first + row: failure for row, failure in piece.failures.items()}
        return count


class InferenceClient:
    """Asks workers, by way of the scheduler.

    Every method raises:
        Overloaded: too much waits, and `asked` is not patient, or no room comes before its deadline, or for long.
        NotReady: the target's workers are gone, and repeating did not help.
        TooLate: the deadline passed.
        WorkerFault: a worker answered wrongly.
    """

    def __init__(self, scheduler: Scheduler) -> None:
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
            target: the workers that may.
            model: what they serve.
            seed: of all of them.
            indices: (n,) uint64, in any order.
            labels: (n,) uint32, the generator's class ids; None for an unconditional one.
            parameters: of the draw, whole: nothing is filled in here.
            context: on whose behalf.
        """
        feed = IndexFeed(seed=seed, indices=indices, labels=labels, dtype=Dtype.UINT8)
        work = _work(target, Operation.SAMPLE, feed, len(indices), model.sample_bytes(Dtype.UINT8), context)
        into = _Whole(count=len(indices), dtype=np.dtype(np.uint8), dims=model.sample_dims)
        failures = await self._fill(into, replace(work, parameters=parameters), context)
        return DrawnSamples(images=into.array(), failures=failures)

    async def classify(
        self, target: Target, model: ServedModel, images: NDArray[np.uint8], context: RequestContext
    ) -> NDArray[np.float32]:
        """Classify (n, H, W, C) uint8 images of the model's own shape.

        Returns:
            (n, classes) float32 probabilities; NaN where the worker failed on a row.
        """
        classes = len(model.labels)
        row_bytes = classes * Dtype.FLOAT32.numpy.itemsize
        work = _work(target, Operation.CLASSIFY, TensorFeed(rows=images), len(images), row_bytes, context)
        into = _Whole(count=len(images), dtype=np.dtype(np.float32), dims=(classes,))
        failures = await self._fill(into, work, context)
        probabilities: NDArray[np.float32] = into.array()
        probabilities[list(failures)] = np.nan
        return probabilities

    async def embed(
        self, target: Target, model: ServedModel, images: NDArray[np.uint8], context: RequestContext
    ) -> NDArray[np.float32]:
        """Embed (n, H, W, C) uint8 images of the model's own shape.

        How many features there are is learnt from the first rows that come: no card says it.

        Returns:
            (n, features) float32; NaN where the worker failed on a row. No images have no features: (0, 0).
        """
        width = self._widths.get(model.key)
        row_bytes = (width or _GUESSED_FEATURES) * Dtype.FLOAT32.numpy.itemsize
        work = _work(target, Operation.EMBED, TensorFeed(rows=images), len(images), row_bytes, context)
        into = _Whole(count=len(images), dtype=np.dtype(np.float32), dims=None if width is None else (width,))
        failures = await self._fill(into, replace(work, is_guessed=width is None), context)
        features: NDArray[np.float32] = into.array()
        if len(images):
            if len(self._widths) >= _WIDTHS_KEPT:
                self._widths.clear()
            self._widths[model.key] = features.shape[1]
        features[list(failures)] = np.nan
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
        """Transform (n, H, W, C) uint8 images, of any shape, as (n, columns) of a table say.

        Noise is read at (seed, each index). Also raises WorkerFault when the worker failed on a single row.
        """
        feed = ManipulationFeed(rows=images, table=table, seed=seed, indices=indices)
        row_bytes = math.prod(images.shape[1:])
        work = _work(target, Operation.TRANSFORM, feed, len(images), row_bytes, context)
        into = _Whole(count=len(images), dtype=np.dtype(np.uint8), dims=images.shape[1:])
        # The card's shape is what warm-up measured; a smaller picture is not counted as cheaper.
        cost = max(1.0, row_bytes / model.sample_bytes(Dtype.UINT8))
        failures = await self._fill(into, replace(work, row_cost=cost), context)
        for row, failure in failures.items():
            raise WorkerFault(f"row {row} could not be transformed: {failure.message}")
        return into.array()

    async def _fill(self, into: _Whole, work: Work, context: RequestContext) -> dict[int, Failure]:
        """Do a work to its end; returns the rows that failed."""
        failures: dict[int, Failure] = {}
        done, since_s = 0, time.monotonic()
        try:
            async with asyncio.timeout(_left_s(context)):
                while done < work.count:
                    rest = replace(work, start_index=done, count=work.count - done)
                    try:
                        async with aclosing(self._scheduler.run(rest)) as pieces:
                            async for piece in pieces:
                                done += into.put(piece, failures)
                                since_s = time.monotonic()
                    except Overloaded as error:
                        if time.monotonic() - since_s > _PATIENCE_S:
                            raise
                        await _wait(error, context, begun=done > 0)
        except TimeoutError as error:
            message = f"{done} of {work.count} rows were done when the deadline passed; ask with more time"
            raise TooLate(message) from error
        return failures


def _work(
    target: Target, operation: Operation, feed: Feed, count: int, sample_bytes: int, context: RequestContext
) -> Work:
    return Work(
        target=target,
        operation=operation,
        feed=feed,
        count=count,
        sample_bytes=sample_bytes,
        caller=context.caller,
        deadline_unix_s=context.deadline_unix_s,
        request_id=context.request_id,
        urgent=context.urgent,
        at_once=True,
    )


def _left_s(context: RequestContext) -> float | None:
    return None if context.deadline_unix_s is None else context.deadline_unix_s - time.time()


async def _wait(error: Overloaded, context: RequestContext, *, begun: bool) -> None:
    """Wait until there may be room; raises the refusal when nobody waits so long."""
    left_s = _left_s(context)
    if not (context.patient or begun) or (left_s is not None and left_s <= error.retry_after_s):
        raise error
    await asyncio.sleep(error.retry_after_s)
