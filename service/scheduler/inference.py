"""The inference client: run the operations of models on whole arrays, by way of the scheduler.

An array enters and becomes one stream of work, which the scheduler batches with that of other requests; the result
leaves as one array, in order. When the scheduler refuses a stream because of too much other work, the client retries
after the time given in the refusal, so that a long pull continues through a busy gateway.

Every array in progress counts as one stream in `GatewayConfig.max_streams` and `CallerLimits.max_streams`.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calls import Failure, GivenItem, Item, Labels, ManipulationItem, RangeItem, TensorItem
from service.domain import Dtype, ModelKey, Operation, Parameters, ServedModel, Target
from service.errors import Overloaded, TooLate, WorkerFault
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.work import Piece, RequestContext, Work

__all__ = ["GivenRows", "InferenceClient"]

_RETRY_LIMIT_S = 300.0  # of refusals without a row in between
_ESTIMATED_FEATURES = 512  # of a model that has not embedded anything yet: bounds the bytes in flight
_MAX_KNOWN_WIDTHS = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenRows:
    """Rows to encode, decode, score or translate, with their addresses.

    Attributes:
        rows: (n, ...) uint8, or float32 in the model's value range; (n, latent_dim) float32 to decode.
        labels: (n,) uint32; None for an unconditional model, or to score log p(x).
        seed, indices: of the noise; indices are (n,) uint64.
    """

    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None
    seed: int
    indices: NDArray[np.uint64]


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
    ) -> tuple[NDArray[np.uint8], dict[int, Failure]]:
        """Draw the samples at (seed, each index).

        Args:
            target: the workers that may serve it.
            model: what they serve.
            seed: of all samples.
            indices: (n,) uint64, in any order.
            labels: (n,) uint32, the generator's class ids; None for an unconditional one.
            parameters: of the draw, complete: no defaults are filled in here.
            context: on whose behalf.

        Returns:
            (n, H, W, C) images, zero where the worker failed, and the failures by row.
        """
        item = RangeItem(
            seed=seed, start_index=0, count=len(indices), labels=labels, dtype=Dtype.UINT8, indices=indices
        )
        work = _work(target, Operation.SAMPLE, item, model.sample_bytes(Dtype.UINT8), context)
        work = replace(work, parameters=parameters, draw_steps=model.draw_steps)
        return await self._run(work, Dtype.UINT8, model.sample_dims)

    async def classify(
        self, target: Target, model: ServedModel, images: NDArray[np.uint8], context: RequestContext
    ) -> NDArray[np.float32]:
        """Classify (n, H, W, C) uint8 images of the model's own shape.

        Returns:
            (n, classes) float32 probabilities; NaN where the worker failed on a row.
        """
        return _with_nan(*await self.probabilities(target, model, images, context))

    async def probabilities(
        self,
        target: Target,
        model: ServedModel,
        rows: NDArray[np.uint8] | NDArray[np.float32],
        context: RequestContext,
    ) -> tuple[NDArray[np.float32], dict[int, Failure]]:
        """Classify images or vectors of the model's own shape.

        Returns:
            (n, classes) float32, zero where the worker failed, and the failures by row.
        """
        classes = len(model.labels)
        row_bytes = classes * Dtype.FLOAT32.numpy.itemsize
        work = _work(target, Operation.CLASSIFY, TensorItem(rows=rows), row_bytes, context)
        return await self._run(work, Dtype.FLOAT32, (classes,))

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
        work = replace(work, sample_bytes_estimated=width is None)
        features = _with_nan(*await self._run(work, Dtype.FLOAT32, None if width is None else (width,)))
        if len(images):
            if len(self._widths) >= _MAX_KNOWN_WIDTHS:
                self._widths.clear()
            self._widths[model.key] = features.shape[1]
        return features

    async def encode(
        self, target: Target, model: ServedModel, given: GivenRows, context: RequestContext
    ) -> tuple[NDArray[np.float32], dict[int, Failure]]:
        """Encode images or vectors of the model's own shape.

        Returns:
            (n, 2, latent_dim) float32, mean and standard deviation, zero where the worker failed, and the failures by
            row.
        """
        dims = (2, model.latent_dim)
        return await self._run_given(target, Operation.ENCODE, given, Dtype.FLOAT32, dims, Parameters(), context)

    async def decode(
        self, target: Target, model: ServedModel, given: GivenRows, dtype: Dtype, context: RequestContext
    ) -> tuple[NDArray[Any], dict[int, Failure]]:
        """Decode (n, latent_dim) float32 latents.

        Returns:
            (n, *sample_dims) of `dtype`, zero where the worker failed, and the failures by row.
        """
        dims = model.sample_dims
        return await self._run_given(target, Operation.DECODE, given, dtype, dims, Parameters(), context)

    async def score(
        self, target: Target, model: ServedModel, given: GivenRows, parameters: Parameters, context: RequestContext
    ) -> tuple[NDArray[np.float32], dict[int, Failure]]:
        """Score images or vectors of the model's own shape: log p(x|y) of rows with labels, else log p(x).

        Returns:
            (n, columns) float32, zero where the worker failed, and the failures by row.
        """
        dims, row_cost = (len(model.score_columns),), _score_cost(model, parameters)
        return await self._run_given(target, Operation.SCORE, given, Dtype.FLOAT32, dims, parameters, context, row_cost)

    async def translate(
        self,
        target: Target,
        model: ServedModel,
        given: GivenRows,
        dtype: Dtype,
        parameters: Parameters,
        context: RequestContext,
    ) -> tuple[NDArray[Any], dict[int, Failure]]:
        """Translate images of the shape that the model takes; labels are its directions, or classes.

        Returns:
            (n, *sample_dims) of `dtype`, zero where the worker failed, and the failures by row.
        """
        item = _given_item(given, dtype)
        work = _work(target, Operation.TRANSLATE, item, model.sample_bytes(dtype), context)
        work = replace(work, parameters=parameters, draw_steps=model.draw_steps)
        return await self._run(work, dtype, model.sample_dims)

    def seconds_to_score(self, target: Target, model: ServedModel, parameters: Parameters) -> float:
        """Return the expected worker time of one score."""
        return self._scheduler.seconds_per_unit(target, Operation.SCORE) * _score_cost(model, parameters)

    def seconds_to_translate(self, target: Target, model: ServedModel, parameters: Parameters) -> float:
        """Return the expected worker time of one translation."""
        steps = parameters.steps or model.draw_steps
        return self._scheduler.seconds_per_unit(target, Operation.TRANSLATE) * steps

    async def _run_given(
        self,
        target: Target,
        operation: Operation,
        given: GivenRows,
        dtype: Dtype,
        dims: tuple[int, ...],
        parameters: Parameters,
        context: RequestContext,
        row_cost: float = 1.0,
    ) -> tuple[NDArray[Any], dict[int, Failure]]:
        item = _given_item(given, dtype)
        row_bytes = math.prod(dims) * dtype.numpy.itemsize
        work = replace(_work(target, operation, item, row_bytes, context), parameters=parameters, row_cost=row_cost)
        return await self._run(work, dtype, dims)

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
        # The card's shape is what warm-up measured; a smaller image is not counted as cheaper.
        cost = max(1.0, row_bytes / model.sample_bytes(Dtype.UINT8))
        work = replace(_work(target, Operation.TRANSFORM, item, row_bytes, context), row_cost=cost)
        transformed, failures = await self._run(work, Dtype.UINT8, images.shape[1:])
        for row, failure in failures.items():
            raise WorkerFault(f"row {row} could not be transformed: {failure.message}")
        return transformed

    async def _run(
        self, work: Work, dtype: Dtype, dims: tuple[int, ...] | None
    ) -> tuple[NDArray[Any], dict[int, Failure]]:
        """Run a work to its end; rows have `dims`, or when None a single number, which the first piece determines."""
        array: NDArray[Any] = np.zeros((work.count, *(dims or (0,))), dtype.numpy)
        failures: dict[int, Failure] = {}
        done, progress_s = 0, time.monotonic()
        try:
            async with asyncio.timeout(work.context.remaining_s):
                while done < work.count:
                    rest = replace(work, start_index=done, count=work.count - done)
                    try:
                        with closing(self._scheduler.open(rest)) as pieces:
                            async for piece in pieces:
                                if dims is None and piece.rows.ndim == 2:
                                    dims = piece.rows.shape[1:]
                                    array = np.zeros((work.count, *dims), dtype.numpy)
                                _check_rows(piece, dtype, dims)
                                array[done : done + len(piece.rows)] = piece.rows
                                failures |= {done + row: failure for row, failure in piece.failures.items()}
                                done, progress_s = done + len(piece.rows), time.monotonic()
                    except Overloaded as error:
                        remaining_s, may_retry = work.context.remaining_s, work.context.retry_overloaded or done > 0
                        in_time = remaining_s is None or remaining_s > error.retry_after_s
                        if not (may_retry and in_time) or time.monotonic() - progress_s > _RETRY_LIMIT_S:
                            raise
                        await asyncio.sleep(error.retry_after_s)
        except TimeoutError as error:
            message = f"{done} of {work.count} rows were done when the deadline passed; allow more time"
            raise TooLate(message) from error
        return array, failures


def _check_rows(piece: Piece, dtype: Dtype, dims: tuple[int, ...] | None) -> None:
    rows, expected = piece.rows, "one number of features" if dims is None else list(dims)
    if rows.dtype != dtype.numpy or rows.shape[1:] != dims:
        raise WorkerFault(
            f"the worker returned {rows.dtype.name} rows of {list(rows.shape[1:])}, "
            f"and {dtype.numpy.name} rows of {expected} were requested"
        )


def _score_cost(model: ServedModel, parameters: Parameters) -> float:
    """Return the cost of a score, relative to one with the model's own number of steps and one importance sample."""
    return (parameters.steps or model.draw_steps) / model.draw_steps * (parameters.importance_samples or 1)


def _with_nan(rows: NDArray[np.float32], failures: dict[int, Failure]) -> NDArray[np.float32]:
    rows[list(failures)] = np.nan
    return rows


def _given_item(given: GivenRows, dtype: Dtype) -> GivenItem:
    return GivenItem(rows=given.rows, labels=given.labels, seed=given.seed, indices=given.indices, dtype=dtype)


def _work(
    target: Target,
    operation: Operation,
    item: Item,
    row_bytes: int,
    context: RequestContext,
) -> Work:
    return Work(
        target=target,
        operation=operation,
        feed=item,
        count=item.count,
        sample_bytes=row_bytes,
        context=context,
        ramp_up=False,
    )
