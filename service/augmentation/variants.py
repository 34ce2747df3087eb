"""Variants of rows a client sends: each one made from its pixels, its number and the seed, and forgotten.

Requests enter as they are read, variants leave in order. No more is read while a window of variants is not taken, so a
client that sends faster than it reads stops itself and nothing grows.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transforms import draw, draw_provenance
from fount.v1 import augmentation_pb2
from service.augmentation.open_plan import Level, MadeRows, Origins
from service.augmentation.read_ahead import in_order
from service.augmentation.slots import Source
from service.errors import InvalidRequest, Violation
from service.rpc.augment_request import VariantsOrder, read_rows
from service.scheduler.inference import InferenceClient, RequestContext

__all__ = ["VariantMaker"]

_MOST_ROWS, _JOB_BYTES = 2048, 1 << 20  # of variants made by one piece of work
_FEW_ROWS = 128
_LEAST_BYTES = 1 << 16  # what a piece of work counts in the window, however small


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """Some variants of the rows of one request.

    Attributes:
        images: (rows, H, W, C) uint8, of the whole request.
        labels: (rows,) uint32, or None.
        first_row: the number of the request's first row.
        span: which variants, counted from the first of the request.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint32] | None
    first_row: int
    span: range


class VariantMaker:
    """Makes the variants of one stream.

    Args:
        order: what is done to every row.
        inference: classifies, embeds, transforms and samples on workers.
        window_bytes: of variants in the making or not yet taken, before no more rows are read.
    """

    def __init__(self, order: VariantsOrder, inference: InferenceClient, window_bytes: int) -> None:
        self._order = order
        self._inference = inference
        self._window_bytes = window_bytes
        self._image_bytes = math.prod(order.shape)

    async def variants(
        self, requests: AsyncIterator[augmentation_pb2.AugmentRequest], context: RequestContext
    ) -> AsyncGenerator[MadeRows]:
        """Answer requests of rows, in order; closing it ends the work on them.

        Raises:
            InvalidRequest: a request is wrong; comes after the variants of those before it.
            Overloaded, NotReady, TooLate, WorkerFault: as `InferenceClient`.
        """

        async def make(job: _Job) -> MadeRows:
            first = job.first_row == self._order.start_index and not job.span.start
            return await self._make(job, replace(context, retry_overloaded=context.retry_overloaded or not first))

        jobs = self._jobs(requests)
        async with aclosing(in_order(jobs, make, size=self._size, window=self._window_bytes)) as made:
            async for each in made:
                yield each

    def _size(self, job: _Job) -> int:
        return max(_LEAST_BYTES, len(job.span) * self._image_bytes)

    async def _jobs(self, requests: AsyncIterator[augmentation_pb2.AugmentRequest]) -> AsyncGenerator[_Job]:
        row, most = self._order.start_index, max(1, min(_MOST_ROWS, _JOB_BYTES // self._image_bytes))
        async for request in requests:
            if request.WhichOneof("kind") != "rows":
                description = "only the first request is a config; send rows"
                raise InvalidRequest((Violation(field=request.WhichOneof("kind") or "rows", description=description),))
            images, labels = read_rows(request.rows, self._order, row)
            count = len(images) * self._order.variants
            for first in range(0, count, most):
                yield _Job(images=images, labels=labels, first_row=row, span=range(first, min(first + most, count)))
            row += len(images)

    async def _make(self, job: _Job, context: RequestContext) -> MadeRows:
        order = self._order
        rows = np.arange(job.span.start, job.span.stop) // order.variants  # of the request
        indices = np.uint64(job.first_row * order.variants) + np.arange(job.span.start, job.span.stop, dtype=np.uint64)
        addresses = Addresses(seeds=np.full(len(rows), order.seed, np.uint64), indices=indices)
        few = len(rows) <= _FEW_ROWS  # drawn sooner than a thread takes over
        table = draw(order.policy, addresses) if few else await asyncio.to_thread(draw, order.policy, addresses)
        images = await self._inference.transform(
            order.target, order.model, job.images[rows], table, seed=order.seed, indices=indices, context=context
        )
        return MadeRows(
            first_index=int(indices[0]),
            images=images,
            labels=None if job.labels is None else job.labels[rows],
            rejected={},
            origins=self._origins(addresses, np.uint64(job.first_row) + rows.astype(np.uint64)),
            counts={int(Source.TRANSFORMED): len(rows)},
        )

    def _origins(self, addresses: Addresses, source_rows: NDArray[np.uint64]) -> Origins | None:
        if self._order.level is Level.NONE:
            return None
        return Origins(
            sources=np.full(len(addresses), Source.TRANSFORMED, np.uint8),
            source_rows=source_rows,
            seeds=addresses.seeds,
            indices=addresses.indices,
            transforms=draw_provenance(self._order.policy, addresses) if self._order.level is Level.FULL else None,
        )
