"""The rows of a plan, made when they are pulled.

An open plan and a stretch of its rows enter; the rows leave in order, a batch at a time, a few batches in the making at
once. A row is made from the plan and its own number alone, so no batch, shard or start changes a byte of it.
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
from fount.readers.dataset import DataError, DatasetSplit
from fount.transforms import COLUMNS, draw, draw_provenance
from service.augmentation.copy_filter import CopyFilters
from service.augmentation.open_plan import NO_ROW, Level, MadeRows, OpenPlan, Origins
from service.augmentation.read_ahead import in_order
from service.augmentation.slots import Slots, Source
from service.augmentation.synthesis import Synthesised, Synthesiser
from service.errors import DatasetUnreadable
from service.scheduler.inference import InferenceClient, RequestContext

__all__ = ["RowMaker", "batches", "out_of_bag_rows", "read_images"]


_FIRST_ROWS, _MOST_ROWS = 256, 2048  # of a batch: the first is small, so that the first rows come soon
_BATCH_BYTES = 4 << 20
_BATCHES = 3  # in the making at once


@dataclass(frozen=True, kw_only=True, eq=False)
class _Begun:
    """A batch before any worker was asked.

    Attributes:
        slots: what its rows are made from.
        images: (n, H, W, C) uint8, source rows as they are; zero for synthesised ones.
        transformed, synthesised: the rows of either kind, from 0.
        table: (transformed, columns) float32, what is to be done to them.
    """

    slots: Slots
    images: NDArray[np.uint8]
    transformed: NDArray[np.intp]
    synthesised: NDArray[np.intp]
    table: NDArray[np.float32]


class RowMaker:
    """Makes the rows of plans.

    Args:
        inference: classifies, embeds, transforms and samples on workers.
        copies: the copy filters, shared by all pulls.
    """

    def __init__(self, inference: InferenceClient, copies: CopyFilters) -> None:
        self._inference = inference
        self._copies = copies

    async def rows(
        self, plan: OpenPlan, first: int, end: int, level: Level, context: RequestContext
    ) -> AsyncGenerator[MadeRows]:
        """Make rows `first` to `end - 1` of a plan; closing it ends the work on them.

        Raises:
            DatasetUnreadable: a source row cannot be read.
            Overloaded, NotReady, TooLate, WorkerFault: as `InferenceClient`.
        """
        synthesiser = self._synthesiser(plan)

        async def make(span: range) -> MadeRows:
            span_context = replace(context, retry_overloaded=context.retry_overloaded or span.start > first)
            return await self._make(plan, synthesiser, span, level, span_context)

        spans = batches(first, end, plan.split.shape)
        async with aclosing(in_order(spans, make, size=lambda _: 1, window=_BATCHES)) as made:
            async for each in made:
                yield each

    def _synthesiser(self, plan: OpenPlan) -> Synthesiser | None:
        if plan.generator is None:
            return None
        copies = self._copies.of(plan.dataset, plan.split) if plan.copy_threshold > 0 else None
        return Synthesiser(plan, copies, self._inference)

    async def _make(
        self, plan: OpenPlan, synthesiser: Synthesiser | None, span: range, level: Level, context: RequestContext
    ) -> MadeRows:
        begun, synthesised = await asyncio.to_thread(_begin, plan, span), None
        slots, images = begun.slots, begun.images
        if len(begun.transformed) and plan.transformer:
            images[begun.transformed] = await self._inference.transform(
                plan.transformer.target,
                plan.transformer.model,
                images[begun.transformed],
                begun.table,
                seed=plan.seed,
                indices=slots.index[begun.transformed],
                context=context,
            )
            context = replace(context, retry_overloaded=True)  # what has begun waits its turn
        if len(rows := begun.synthesised) and synthesiser:
            try:
                synthesised = await synthesiser.rows(slots.index[rows], slots.label[rows], context)
            except DataError as error:
                raise DatasetUnreadable(str(error)) from error
            images[rows] = synthesised.images
        return await asyncio.to_thread(_finish, plan, begun, synthesised, level)


async def batches(first: int, end: int, shape: tuple[int, int, int]) -> AsyncGenerator[range]:
    """Cut rows into batches of bounded rows and bytes, the first ones small."""
    most = max(1, min(_MOST_ROWS, _BATCH_BYTES // math.prod(shape)))
    count = min(_FIRST_ROWS, most)
    while first < end:
        yield range(first, min(first + count, end))
        first, count = first + count, min(2 * count, most)


def read_images(split: DatasetSplit, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read rows of a split.

    Raises:
        DatasetUnreadable: one cannot be read; names it.
    """
    try:
        return split.images(rows)
    except DataError as error:
        raise DatasetUnreadable(str(error)) from error


def _begin(plan: OpenPlan, span: range) -> _Begun:
    """What needs no worker: slots, source rows, and the table of transforms."""
    slots = plan.layout.rows(span.start, len(span))
    transformed = np.flatnonzero(slots.source == Source.TRANSFORMED)
    synthesised = slots.source == Source.SYNTHESISED
    images = np.zeros((len(span), *plan.split.shape), np.uint8)
    if not synthesised.all():
        images[~synthesised] = read_images(plan.split, slots.source_row[~synthesised])
    addresses = _addresses(plan, slots.index[transformed])
    table = draw(plan.policy, addresses) if len(transformed) else np.empty((0, len(COLUMNS)), np.float32)
    return _Begun(
        slots=slots, images=images, transformed=transformed, synthesised=np.flatnonzero(synthesised), table=table
    )


def _addresses(plan: OpenPlan, indices: NDArray[np.uint64]) -> Addresses:
    return Addresses(seeds=np.full(len(indices), plan.seed, np.uint64), indices=indices)


def _finish(plan: OpenPlan, begun: _Begun, synthesised: Synthesised | None, level: Level) -> MadeRows:
    slots, rejected, counts = begun.slots, dict[int, int](), np.bincount(begun.slots.source)
    if synthesised:
        refused = begun.synthesised[~synthesised.accepted]
        rejected = dict.fromkeys(refused.tolist(), plan.attempts)
        counts[Source.SYNTHESISED] -= len(refused)
    return MadeRows(
        first_index=int(slots.index[0]),
        images=begun.images,
        labels=slots.label,
        groups=slots.group if plan.dataset.groups else None,
        weights=None if (slots.weight == 1).all() else slots.weight,
        rejected=rejected,
        origins=None if level is Level.NONE else _origins(plan, begun, synthesised, level),
        counts={source: count for source, count in enumerate(counts.tolist()) if count},
        refused=int(synthesised.attempts.sum()) if synthesised else 0,
    )


def _origins(plan: OpenPlan, begun: _Begun, synthesised: Synthesised | None, level: Level) -> Origins:
    slots, count = begun.slots, len(begun.images)
    source_rows = slots.source_row.astype(np.uint64)
    source_rows[slots.source_row < 0] = NO_ROW
    seeds = np.full(count, plan.seed, np.uint64)
    origins = Origins(sources=slots.source, source_rows=source_rows, seeds=seeds, indices=slots.index)
    if synthesised:
        attempts = np.zeros(count, np.uint32)
        seeds[begun.synthesised], attempts[begun.synthesised] = synthesised.seeds, synthesised.attempts
        origins = replace(origins, attempts=attempts)
    return origins if level is Level.IDS else _in_full(plan, begun, synthesised, origins)


def _in_full(plan: OpenPlan, begun: _Begun, synthesised: Synthesised | None, origins: Origins) -> Origins:
    """What is drawn and read beside the address, each column as long as the batch."""
    count = len(begun.images)
    if len(begun.transformed):
        transforms = np.full((count, len(COLUMNS)), np.nan, np.float32)
        addresses = _addresses(plan, begun.slots.index[begun.transformed])
        transforms[begun.transformed] = draw_provenance(plan.policy, addresses)
        origins = replace(origins, transforms=transforms)
    if synthesised and plan.classifier and plan.min_confidence > 0:
        confidences = np.full(count, np.nan, np.float32)
        confidences[begun.synthesised] = synthesised.confidences
        origins = replace(origins, confidences=confidences)
    if synthesised and plan.copy_threshold > 0:
        copy_ratios = np.full(count, np.nan, np.float32)
        copy_ratios[begun.synthesised] = synthesised.copy_ratios
        origins = replace(origins, copy_ratios=copy_ratios)
    return origins


# FOLDED FROM service.augmentation.rows:
# The rows a plan's bootstrap did not draw: real ones, as they are, to judge what was trained on the plan by.


async def out_of_bag_rows(
    plan: OpenPlan, rows: NDArray[np.int64], first: int, end: int, level: Level
) -> AsyncGenerator[MadeRows]:
    """Read rows out of bag, in order.

    Args:
        plan: whose bag it is.
        rows: all rows of the split out of it, ascending.
        first: of them, the one to begin at.
        end: one beyond the last.
        level: how much each tells.

    Raises:
        DatasetUnreadable: a row cannot be read.
    """

    async def read(span: range) -> MadeRows:
        return await asyncio.to_thread(_read, plan, rows, span, level)

    spans = batches(first, end, plan.split.shape)
    async with aclosing(in_order(spans, read, size=lambda _: 1, window=2)) as made:
        async for each in made:
            yield each


def _read(plan: OpenPlan, rows: NDArray[np.int64], span: range, level: Level) -> MadeRows:
    chosen, split = rows[span.start : span.stop], plan.split
    origins = Origins(
        sources=np.full(len(chosen), Source.REAL, np.uint8),
        source_rows=chosen.astype(np.uint64),
        seeds=np.full(len(chosen), plan.seed, np.uint64),
        indices=np.arange(span.start, span.stop, dtype=np.uint64),
    )
    return MadeRows(
        first_index=span.start,
        images=read_images(split, chosen),
        labels=split.labels[chosen],
        groups=None if split.groups is None else split.groups[chosen],
        rejected={},
        origins=None if level is Level.NONE else origins,
        counts={int(Source.REAL): len(chosen)},
    )
