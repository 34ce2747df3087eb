"""The rows a plan's bootstrap did not draw: real ones, as they are, to judge what was trained on the plan by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from service.augmentation.made_rows import Level, MadeRows, Origins
from service.augmentation.open_plan import OpenPlan
from service.augmentation.read_ahead import in_order
from service.augmentation.rows import batches, read_images
from service.augmentation.slots import Source

__all__ = ["out_of_bag_rows"]


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
