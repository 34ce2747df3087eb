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
from service.augmentation.plan_spec import OpenPlan
from service.augmentation.slots import Slots, Source
from service.augmentation.synthesis import SynthesisedRows, Synthesiser
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
        attempts: (n,) uint32, samples rejected before; None: nothing was synthesised.
        transforms: (n, columns) float32, NaN where a transform was not applied; None: none was, or the level is not
            FULL.
        confidences: (n,) float32, NaN where none; None: no sample was classified, or the level is not FULL.
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
        rejected: rows, from 0, for which no sample was accepted, and the number of samples tried.
        provenance: None at level NONE.
        source_counts: rows by source, without rejected ones, for metrics.
        rejected_samples: samples rejected for these rows, for metrics.
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
        transformed, synthesised: the rows of either source, from 0.
        table: (transformed, columns) float32, how they are to be transformed.
    """

    slots: Slots
    images: NDArray[np.uint8]
    transformed: NDArray[np.intp]
    synthesised: NDArray[np.intp]
    table: NDArray[np.float32]


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
        synthesiser = Synthesiser(plan, self._cache, self._inference) if plan.synthesis else None

        async def make(batch: range) -> MadeRows:
            own_context = replace(context, retry_overloaded=context.retry_overloaded or batch.start > first)
            return await self._make(plan, synthesiser, batch, level, own_context)

        batches = _batches(first, end, plan.spec.split.shape)
        return map_in_order(batches, make, size=lambda _: 1, window=_BATCHES)

    async def _make(
        self,
        plan: OpenPlan,
        synthesiser: Synthesiser | None,
        batch: range,
        level: ProvenanceLevel,
        context: RequestContext,
    ) -> MadeRows:
        prepared, synthesised = await run_in_thread(_prepare, plan, batch), None
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
        if len(rows := prepared.synthesised) and synthesiser:
            synthesised = await synthesiser.rows(slots.index[rows], slots.label[rows], context)
            images[rows] = synthesised.images
        return await run_in_thread(_assemble, plan, prepared, synthesised, level)


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
    synthesised = slots.source == Source.SYNTHESISED
    images = np.zeros((len(batch), *plan.spec.split.shape), np.uint8)
    if not synthesised.all():
        with unreadable_errors(plan.spec.dataset.name, plan.spec.dataset.path):
            images[~synthesised] = plan.spec.split.images(slots.source_row[~synthesised])
    addresses = _addresses(plan, slots.index[transformed])
    table = draw(plan.spec.policy, addresses) if len(transformed) else np.empty((0, len(COLUMNS)), np.float32)
    return _Prepared(
        slots=slots, images=images, transformed=transformed, synthesised=np.flatnonzero(synthesised), table=table
    )


def _addresses(plan: OpenPlan, indices: NDArray[np.uint64]) -> Addresses:
    return Addresses(seeds=np.full(len(indices), plan.spec.seed, np.uint64), indices=indices)


def _assemble(
    plan: OpenPlan, prepared: _Prepared, synthesised: SynthesisedRows | None, level: ProvenanceLevel
) -> MadeRows:
    slots, counts = prepared.slots, np.bincount(prepared.slots.source, minlength=len(Source) + 1)
    rejected: dict[int, int] = {}
    if synthesised and plan.synthesis:
        rows = prepared.synthesised[~synthesised.accepted]
        rejected = dict.fromkeys(rows.tolist(), plan.synthesis.attempts)
        counts[Source.SYNTHESISED] -= len(rows)
    return MadeRows(
        first_index=int(slots.index[0]),
        images=prepared.images,
        labels=slots.label,
        groups=slots.group if plan.spec.dataset.groups else None,
        weights=None if (slots.weight == 1).all() else slots.weight,
        rejected=rejected,
        provenance=None if level is ProvenanceLevel.NONE else _provenance(plan, prepared, synthesised, level),
        source_counts={source: int(counts[source]) for source in Source if counts[source]},
        rejected_samples=int(synthesised.attempts.sum()) if synthesised else 0,
    )


def _provenance(
    plan: OpenPlan, prepared: _Prepared, synthesised: SynthesisedRows | None, level: ProvenanceLevel
) -> Provenance:
    slots, count = prepared.slots, len(prepared.images)
    source_rows = slots.source_row.astype(np.uint64)
    source_rows[slots.source_row < 0] = NO_ROW
    seeds, attempts = np.full(count, plan.spec.seed, np.uint64), None
    if synthesised:
        attempts = np.zeros(count, np.uint32)
        seeds[prepared.synthesised], attempts[prepared.synthesised] = synthesised.seeds, synthesised.attempts
    provenance = Provenance(
        sources=slots.source, source_rows=source_rows, seeds=seeds, indices=slots.index, attempts=attempts
    )
    if level is ProvenanceLevel.IDS:
        return provenance
    transforms = confidences = copy_ratios = None
    if len(rows := prepared.transformed):
        transforms = _spread(count, rows, draw_provenance(plan.spec.policy, _addresses(plan, slots.index[rows])))
    if synthesised and plan.synthesis and plan.synthesis.classifier and plan.synthesis.min_confidence > 0:
        confidences = _spread(count, prepared.synthesised, synthesised.confidences)
    if synthesised and plan.copy_threshold:
        copy_ratios = _spread(count, prepared.synthesised, synthesised.copy_ratios)
    return replace(provenance, transforms=transforms, confidences=confidences, copy_ratios=copy_ratios)


def _spread(count: int, rows: NDArray[np.intp], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Place (rows, ...) values in an array of `count` rows; NaN in the others."""
    column = np.full((count, *values.shape[1:]), np.nan, np.float32)
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
