"""Make the rows of a plan when they are pulled.

An open plan and a range of its rows enter; the rows leave in order, batch by batch, with a few batches made at once. A
row is made from the plan and its own number alone, so no batch, shard or start changes a byte of it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transforms import COLUMNS, draw, draw_provenance
from service.augmentation.copy_filter import PixelCache
from service.augmentation.generation import GeneratedRows, RowGenerator, RowsToMake
from service.augmentation.plan_spec import GenerationSpec, OpenPlan
from service.augmentation.slots import Slots, Source
from service.datasets import unreadable_errors
from service.read_ahead import map_in_order
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext
from service.threads import run_in_thread

__all__ = ["NO_ROW", "MadeRows", "Provenance", "ProvenanceLevel", "RowMaker", "out_of_bag_rows"]

NO_ROW = 2**64 - 1
"""The source row of a synthesised row."""

_FIRST_ROWS, _MOST_ROWS = 256, 2048  # of a batch: the first is small, so that the first rows arrive soon
_BATCH_BYTES = 4 << 20
_BATCHES = 3  # made at once


class ProvenanceLevel(IntEnum):
    """How much is reported of each row's provenance, numbered as in fount.v1.ProvenanceLevel."""

    NONE = 1
    IDS = 2
    FULL = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Provenance:
    """Where rows come from, one column for each fact.

    Attributes:
        sources: (n,) uint8, as `Source`.
        source_rows: (n,) uint64, rows of the split, or NO_ROW.
        seeds, indices: (n,) uint64, the address of what was drawn for each.
        attempts: (n,) uint32, images rejected before; None: no row was generated.
        transforms: (n, columns) float32, NaN where a transform was not applied; None: none was, or the level is not
            FULL.
        confidences: (n,) float32, NaN where none; None: no row was classified, or the level is not FULL.
        copy_ratios: (n,) float32, likewise.
    """

    sources: NDArray[np.uint8]
    source_rows: NDArray[np.uint64]
    seeds: NDArray[np.uint64]
    indices: NDArray[np.uint64]
    attempts: NDArray[np.uint32] | None = None
    transforms: NDArray[np.float32] | None = None
    confidences: NDArray[np.float32] | None = None
    copy_ratios: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, source: Source, source_rows: NDArray[np.uint64], addresses: Addresses) -> Provenance:
        """Describe rows of one source."""
        sources = np.full(len(addresses), source, np.uint8)
        return cls(sources=sources, source_rows=source_rows, seeds=addresses.seeds, indices=addresses.indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeRows:
    """Consecutive rows.

    Attributes:
        first_index: index of the first.
        images: (n, H, W, C) uint8, C-contiguous; zero for rejected slots.
        labels: (n,) uint32; None: they have none.
        groups: (n,) uint32; None: no group column.
        weights: (n,) uint32; None: all are 1.
        rejected: rows, from 0, for which no image was accepted, and the number of images tried.
        provenance: None at level NONE.
        source_counts: rows by source, without rejected ones, for metrics.
        rejected_samples: images rejected for these rows, for metrics.
    """

    first_index: int
    images: NDArray[np.uint8]
    labels: NDArray[np.uint32] | None
    groups: NDArray[np.uint32] | None = None
    weights: NDArray[np.uint32] | None = None
    rejected: dict[int, int]
    provenance: Provenance | None
    source_counts: dict[Source, int]
    rejected_samples: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """A batch before any worker call.

    Attributes:
        slots: what its rows are made from.
        images: (n, H, W, C) uint8, source rows as they are; zero for synthesised ones.
        transformed: the transformed rows, from 0.
        table: (transformed, columns) float32, how they are to be transformed.
    """

    slots: Slots
    images: NDArray[np.uint8]
    transformed: NDArray[np.intp]
    table: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Generated:
    """The generated rows of a batch and one source: their places, from 0, and what was made.

    Attributes:
        spec: how.
        rows: (n,) places.
        made: the n rows.
    """

    spec: GenerationSpec
    rows: NDArray[np.intp]
    made: GeneratedRows


class RowMaker:
    """Makes the rows of plans; the copy filters of all pulls share a cache."""

    def __init__(self, inference: InferenceClient, cache: PixelCache) -> None:
        self._inference, self._cache = inference, cache

    def rows(
        self, plan: OpenPlan, first: int, end: int, level: ProvenanceLevel, context: RequestContext
    ) -> AsyncGenerator[MadeRows]:
        """Make rows `first` to `end - 1` of a plan; closing the generator ends the work on them.

        Raises:
            DatasetUnreadable: a source row cannot be read.
            Overloaded, NotReady, TooLate, WorkerFault: as `InferenceClient`; only the first batch may be refused as
                `context` says, later ones wait for capacity.
        """
        generators = [
            (each, RowGenerator(plan, each, self._cache, self._inference)) for each in plan.generation.values()
        ]

        async def make(batch: range) -> MadeRows:
            own_context = replace(context, retry_overloaded=context.retry_overloaded or batch.start > first)
            return await self._make(plan, generators, batch, level, own_context)

        batches = _batches(first, end, plan.spec.split.shape)
        return map_in_order(batches, make, size=lambda _: 1, window=_BATCHES)

    async def _make(
        self,
        plan: OpenPlan,
        generators: list[tuple[GenerationSpec, RowGenerator]],
        batch: range,
        level: ProvenanceLevel,
        context: RequestContext,
    ) -> MadeRows:
        prepared, generated = await run_in_thread(_prepare, plan, batch), list[_Generated]()
        slots, images = prepared.slots, prepared.images
        if len(rows := prepared.transformed) and plan.transformer:
            images[rows] = await self._inference.transform(
                plan.transformer.target,
                plan.transformer.model,
                images[rows],
                prepared.table,
                seed=plan.spec.seed,
                indices=slots.index[rows],
                context=context,
            )
            context = replace(context, retry_overloaded=True)  # a batch that has started waits for capacity
        for spec, generator in generators:
            if len(rows := np.flatnonzero(slots.source == spec.source)):
                to_make = RowsToMake(indices=slots.index[rows], labels=slots.label[rows], images=images[rows])
                made = await generator.rows(to_make, context)
                images[rows] = made.images
                generated.append(_Generated(spec=spec, rows=rows, made=made))
                context = replace(context, retry_overloaded=True)
        return await run_in_thread(_assemble, plan, prepared, generated, level)


def out_of_bag_rows(
    plan: OpenPlan, rows: NDArray[np.int64], first: int, end: int, level: ProvenanceLevel
) -> AsyncGenerator[MadeRows]:
    """Read the rows that the plan's bootstrap did not draw, as they are and in order: test data for what it trains.

    Args:
        plan: whose bootstrap.
        rows: all rows of the split out of bag, ascending.
        first: the one to start at, of `rows`.
        end: one beyond the last.
        level: how much provenance is reported.

    Raises:
        DatasetUnreadable: a row cannot be read.
    """

    async def read(batch: range) -> MadeRows:
        return await run_in_thread(_read_out_of_bag, plan, rows, batch, level)

    return map_in_order(_batches(first, end, plan.spec.split.shape), read, size=lambda _: 1, window=2)


async def _batches(first: int, end: int, shape: tuple[int, int, int]) -> AsyncGenerator[range]:
    """Cut rows into batches of bounded rows and bytes, the first ones small."""
    most = max(1, min(_MOST_ROWS, _BATCH_BYTES // math.prod(shape)))
    count = min(_FIRST_ROWS, most)
    while first < end:
        yield range(first, min(first + count, end))
        first, count = first + count, min(2 * count, most)


def _prepare(plan: OpenPlan, batch: range) -> _Prepared:
    """Compute what needs no worker: slots, source rows, and the table of transforms."""
    slots = plan.layout.rows(batch.start, len(batch))
    transformed = np.flatnonzero(slots.source == Source.TRANSFORMED)
    from_data = slots.source_row >= 0
    images = np.zeros((len(batch), *plan.spec.split.shape), np.uint8)
    if from_data.any():
        with unreadable_errors(plan.spec.dataset.name, plan.spec.dataset.path):
            images[from_data] = plan.spec.split.images(slots.source_row[from_data])
    addresses = _addresses(plan, slots.index[transformed])
    table = draw(plan.spec.policy, addresses) if len(transformed) else np.empty((0, len(COLUMNS)), np.float32)
    return _Prepared(slots=slots, images=images, transformed=transformed, table=table)


def _addresses(plan: OpenPlan, indices: NDArray[np.uint64]) -> Addresses:
    return Addresses(seeds=np.full(len(indices), plan.spec.seed, np.uint64), indices=indices)


def _assemble(plan: OpenPlan, prepared: _Prepared, generated: list[_Generated], level: ProvenanceLevel) -> MadeRows:
    slots, counts = prepared.slots, np.bincount(prepared.slots.source, minlength=len(Source) + 1)
    rejected: dict[int, int] = {}
    for each in generated:
        rows = each.rows[~each.made.accepted]
        rejected |= dict.fromkeys(rows.tolist(), each.spec.attempts)
        counts[each.spec.source] -= len(rows)
    return MadeRows(
        first_index=int(slots.index[0]),
        images=prepared.images,
        labels=slots.label,
        groups=slots.group if plan.spec.dataset.groups else None,
        weights=None if (slots.weight == 1).all() else slots.weight,
        rejected=rejected,
        provenance=None if level is ProvenanceLevel.NONE else _provenance(plan, prepared, generated, level),
        source_counts={source: int(counts[source]) for source in Source if counts[source]},
        rejected_samples=sum(int(each.made.attempts.sum()) for each in generated),
    )


def _provenance(plan: OpenPlan, prepared: _Prepared, generated: list[_Generated], level: ProvenanceLevel) -> Provenance:
    slots, count = prepared.slots, len(prepared.images)
    source_rows = slots.source_row.astype(np.uint64)
    source_rows[slots.source_row < 0] = NO_ROW
    seeds, attempts = np.full(count, plan.spec.seed, np.uint64), np.zeros(count, np.uint32)
    for each in generated:
        seeds[each.rows], attempts[each.rows] = each.made.seeds, each.made.attempts
    provenance = Provenance(
        sources=slots.source,
        source_rows=source_rows,
        seeds=seeds,
        indices=slots.index,
        attempts=attempts if generated else None,
    )
    if level is ProvenanceLevel.IDS:
        return provenance
    transforms = confidences = copy_ratios = None
    if len(rows := prepared.transformed):
        transforms = _spread(count, [(rows, draw_provenance(plan.spec.policy, _addresses(plan, slots.index[rows])))])
    if any(each.spec.classifier for each in generated):
        confidences = _spread(count, [(each.rows, each.made.confidences) for each in generated])
    if plan.copy_threshold and any(each.spec.source is Source.SYNTHESISED for each in generated):
        copy_ratios = _spread(count, [(each.rows, each.made.copy_ratios) for each in generated])
    return replace(provenance, transforms=transforms, confidences=confidences, copy_ratios=copy_ratios)


def _spread(count: int, parts: list[tuple[NDArray[np.intp], NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Place the (rows, ...) values of some rows in an array of `count` rows; NaN in the others."""
    column = np.full((count, *parts[0][1].shape[1:]), np.nan, np.float32)
    for rows, values in parts:
        column[rows] = values
    return column


def _read_out_of_bag(plan: OpenPlan, rows: NDArray[np.int64], batch: range, level: ProvenanceLevel) -> MadeRows:
    chosen, split = rows[batch.start : batch.stop], plan.spec.split
    with unreadable_errors(plan.spec.dataset.name, plan.spec.dataset.path):
        images = split.images(chosen)
    addresses = _addresses(plan, np.arange(batch.start, batch.stop, dtype=np.uint64))
    provenance = Provenance.of(Source.REAL, chosen.astype(np.uint64), addresses)
    return MadeRows(
        first_index=batch.start,
        images=images,
        labels=split.labels[chosen],
        groups=None if split.groups is None else split.groups[chosen],
        rejected={},
        provenance=None if level is ProvenanceLevel.NONE else provenance,
        source_counts={Source.REAL: len(chosen)},
    )
