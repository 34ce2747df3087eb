"""From wishes to an open plan: counted, laid out, calibrated. Counting and laying out are meant for threads."""

from __future__ import annotations

import asyncio

import numpy as np

from fount.readers import DataError, Dataset, DatasetSplit
from service.augmentation.copy_filter import calibrate
from service.augmentation.open_plan import OpenPlan
from service.augmentation.slots import Layout, RealMode, Source
from service.augmentation.targets import Cells, Filling, count_cells
from service.domain import Parameters
from service.errors import DatasetUnreadable
from service.rpc.plan_request import Wishes, held_out_split

__all__ = ["calibrate_copies", "count", "lay_out", "open_wishes"]


def count(dataset: Dataset, split: DatasetSplit) -> Cells:
    """Count the rows of a split by class and group."""
    return count_cells(split.labels, split.groups, len(dataset.classes), len(dataset.groups))


def lay_out(wishes: Wishes, filling: Filling) -> Layout:
    """Lay out the slots of what was counted."""
    return Layout(
        labels=wishes.split.labels,
        groups=wishes.split.groups,
        group_count=len(wishes.dataset.groups),
        strata=filling.strata,
        mode=wishes.mode,
        seed=wishes.seed,
    )


async def calibrate_copies(wishes: Wishes, filling: Filling) -> float:
    """The ratio below which a sample is a copy; 0 where nothing is synthesised or nothing filters."""
    held_out, synthesis = held_out_split(wishes.dataset, wishes.split), wishes.synthesis
    made = any(each.source is Source.SYNTHESISED for each in filling.strata)
    if not (made and synthesis and synthesis.copy_quantile and held_out):
        return 0.0
    try:
        return await asyncio.to_thread(calibrate, wishes.split, held_out, synthesis.copy_quantile, wishes.seed)
    except DataError as error:
        raise DatasetUnreadable(f"data set {wishes.dataset.name}: {error}") from error


def open_wishes(wishes: Wishes, filling: Filling, layout: Layout, copy_threshold: float, *, identity: str) -> OpenPlan:
    """Put a plan together; models that no row needs are left out."""
    sources = {each.source for each in filling.strata}
    synthesis = wishes.synthesis if Source.SYNTHESISED in sources else None
    no_labels = np.zeros(0, np.uint32)
    return OpenPlan(
        id=identity,
        seed=wishes.seed,
        dataset=wishes.dataset,
        split=wishes.split,
        layout=layout,
        policy=wishes.policy,
        shards=wishes.shards,
        bootstrapped=wishes.mode in (RealMode.BOOTSTRAP, RealMode.POISSON),
        generator=synthesis.generator if synthesis else None,
        classifier=synthesis.classifier if synthesis else None,
        transformer=wishes.transformer if Source.TRANSFORMED in sources else None,
        parameters=synthesis.parameters if synthesis else Parameters(),
        attempts=synthesis.attempts if synthesis else 1,
        min_confidence=synthesis.min_confidence if synthesis else 0.0,
        copy_threshold=copy_threshold,
        generator_labels=synthesis.generator_labels if synthesis else no_labels,
        classifier_labels=synthesis.classifier_labels if synthesis else no_labels,
    )
