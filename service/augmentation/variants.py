"""Make variants of rows that a client sends: each one from its pixels, its number and the seed. Nothing is kept.

Rows enter as they are read, variants leave in order. No more rows are read while a window of variants is not taken, so
a client that sends faster than it reads is slowed down, and memory does not grow.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transforms import Policy, draw, draw_provenance
from service.augmentation.rows import MadeRows, Provenance, ProvenanceLevel
from service.augmentation.slots import Source
from service.catalog import PinnedModel
from service.read_ahead import map_in_order
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext

__all__ = ["ReceivedRows", "VariantMaker", "VariantSpec"]

_MOST_ROWS, _BATCH_BYTES = 2048, 1 << 20  # of variants made together
_FEW_ROWS = 128  # drawn in less time than a thread needs to start
_LEAST_BYTES = 1 << 16  # that a batch counts in the window, however small


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantSpec:
    """How variants are made.

    Attributes:
        shape: of every image, (H, W, C).
        policy: how rows are transformed.
        variants: number of variants of each row.
        seed: keys everything that is drawn.
        start_index: number of the first row.
        level: how much provenance is reported.
        transformer: the model that transforms.
    """

    shape: tuple[int, int, int]
    policy: Policy
    variants: int
    seed: int
    start_index: int
    level: ProvenanceLevel
    transformer: PinnedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class ReceivedRows:
    """The rows of one message.

    Attributes:
        first_row: number of the first.
        images: (n, H, W, C) uint8, read-only.
        labels: (n,) uint32; None: they have none.
    """

    first_row: int
    images: NDArray[np.uint8]
    labels: NDArray[np.uint32] | None


_Batch = tuple[ReceivedRows, range]
"""Received rows, and some variants of them, counted from the first variant of the first row."""


class VariantMaker:
    """Makes the variants of one stream, with at most about `window_bytes` of them being made or not yet taken."""

    def __init__(self, spec: VariantSpec, inference: InferenceClient, window_bytes: int) -> None:
        self._spec = spec
        self._inference = inference
        self._window_bytes = window_bytes
        self._image_bytes = math.prod(spec.shape)

    def variants(self, received: AsyncGenerator[ReceivedRows], context: RequestContext) -> AsyncGenerator[MadeRows]:
        """Make the variants of rows, in order; closing the generator ends the work on them.

        Raises:
            Overloaded, NotReady, TooLate, WorkerFault: as `InferenceClient`. An error of `received` is raised after the
                variants of the rows before it.
        """

        async def make(batch: _Batch) -> MadeRows:
            received, variants = batch
            is_first = received.first_row == self._spec.start_index and not variants.start
            own_context = replace(context, retry_overloaded=context.retry_overloaded or not is_first)
            return await self._make(received, variants, own_context)

        def size(batch: _Batch) -> int:
            return max(_LEAST_BYTES, len(batch[1]) * self._image_bytes)

        return map_in_order(self._batches(received), make, size=size, window=self._window_bytes)

    async def _batches(self, received: AsyncGenerator[ReceivedRows]) -> AsyncGenerator[_Batch]:
        most = max(1, min(_MOST_ROWS, _BATCH_BYTES // self._image_bytes))
        async with aclosing(received):
            async for rows in received:
                count = len(rows.images) * self._spec.variants
                for first in range(0, count, most):
                    yield rows, range(first, min(first + most, count))

    async def _make(self, received: ReceivedRows, chosen: range, context: RequestContext) -> MadeRows:
        spec, variants = self._spec, np.arange(chosen.start, chosen.stop, dtype=np.uint64)
        rows = variants // np.uint64(spec.variants)  # of the message
        indices = np.uint64(received.first_row * spec.variants) + variants
        addresses = Addresses(seeds=np.full(len(rows), spec.seed, np.uint64), indices=indices)
        few = len(rows) <= _FEW_ROWS
        table = draw(spec.policy, addresses) if few else await asyncio.to_thread(draw, spec.policy, addresses)
        images = await self._inference.transform(
            spec.transformer.target,
            spec.transformer.model,
            received.images[rows],
            table,
            seed=spec.seed,
            indices=indices,
            context=context,
        )
        return MadeRows(
            first_index=int(indices[0]),
            images=images,
            labels=None if received.labels is None else received.labels[rows],
            rejected={},
            provenance=self._provenance(addresses, np.uint64(received.first_row) + rows),
            source_counts={Source.TRANSFORMED: len(rows)},
        )

    def _provenance(self, addresses: Addresses, source_rows: NDArray[np.uint64]) -> Provenance | None:
        if self._spec.level is ProvenanceLevel.NONE:
            return None
        provenance = Provenance.of(Source.TRANSFORMED, source_rows, addresses)
        if self._spec.level is ProvenanceLevel.IDS:
            return provenance
        return replace(provenance, transforms=draw_provenance(self._spec.policy, addresses))
