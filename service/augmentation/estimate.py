"""What a plan will cost and lose: a trial of its generator, and the time that pulling takes.

An open plan enters; a `Trial` leaves, drawn at the plan's own addresses, so equal plans have equal estimates of what is
refused. Time is told from what workers' batches took at warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.readers import DataError
from service.augmentation.copy_filter import CopyFilters
from service.augmentation.open_plan import OpenPlan, Pinned
from service.augmentation.slots import Source
from service.augmentation.synthesis import Synthesiser
from service.catalog import Catalog
from service.errors import DatasetUnreadable
from service.scheduler.costs import CostModel
from service.scheduler.inference import Asked, Asking

__all__ = ["Trial", "class_weights", "pull_seconds", "source_counts", "try_generator"]

_SAMPLES, _FEWEST_OF_CLASS, _MOST_CLASSES = 128, 4, 32
_ROW_S, _BYTES_PER_S = 2e-6, 200e6  # of the gateway's own work: a row, and its bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What first attempts came to, by class.

    Attributes:
        labels: (k,) the classes tried.
        accepted: (k,) share that passed every filter.
        confidences: (k,) mean probability of the class; NaN where no classifier was asked.
        expected_attempts: samples drawn for one row, over all synthesised rows.
        expected_rejected: slots for which none is accepted.
    """

    labels: NDArray[np.int64]
    accepted: NDArray[np.float64]
    confidences: NDArray[np.float64]
    expected_attempts: float
    expected_rejected: float


def source_counts(plan: OpenPlan) -> dict[Source, int]:
    """Rows of a plan by source."""
    return {source: sum(each.count for each in plan.layout.strata if each.source is source) for source in Source}


async def try_generator(plan: OpenPlan, copies: CopyFilters, asking: Asking, asked: Asked) -> Trial:
    """Draw first attempts of every synthesised class, or of the largest where there are many.

    Raises:
        DatasetUnreadable: a training row cannot be read. Also whatever `Asking` raises.
    """
    wanted = {each.label: each.count for each in plan.layout.strata if each.source is Source.SYNTHESISED}
    tried = sorted(sorted(wanted, key=lambda label: -wanted[label])[:_MOST_CLASSES])
    each = max(_FEWEST_OF_CLASS, _SAMPLES // len(tried))
    labels = np.repeat(np.array(tried, np.uint32), each)
    synthesiser = Synthesiser(replace(plan, attempts=1), copies.of(plan.dataset, plan.split), asking)
    try:
        made = await synthesiser.rows(np.arange(len(labels), dtype=np.uint64), labels, asked)
    except DataError as error:
        raise DatasetUnreadable(f"data set {plan.dataset.name}: {error}") from error
    accepted = made.accepted.reshape(len(tried), each).mean(axis=1)
    weights = np.array([wanted[label] for label in tried], np.float64)
    attempts = [_attempts(share, plan.attempts) for share in accepted.tolist()]
    scale = sum(wanted.values()) / weights.sum()  # classes not tried are taken to be like those tried
    return Trial(
        labels=np.array(tried, np.int64),
        accepted=accepted,
        confidences=made.confidences.astype(np.float64).reshape(len(tried), each).mean(axis=1),
        expected_attempts=float(np.average(attempts, weights=weights)),
        expected_rejected=float(((1 - accepted) ** plan.attempts * weights).sum() * scale),
    )


def pull_seconds(plan: OpenPlan, trial: Trial | None, catalog: Catalog) -> float:
    """About how long pulling all rows takes on idle workers: models work at the same time, the gateway beside them."""
    counts = source_counts(plan)
    samples = counts[Source.SYNTHESISED] * (trial.expected_attempts if trial else 1.0)
    steps = plan.parameters.steps or 1
    read = samples if plan.min_confidence > 0 else 0.0
    work = [(plan.generator, samples * steps), (plan.classifier, read), (plan.transformer, counts[Source.TRANSFORMED])]
    busy_s = [units * _unit_seconds(pinned, catalog) for pinned, units in work if pinned and units]
    own_s = plan.layout.count * (_ROW_S + float(np.prod(plan.dataset.shape)) / _BYTES_PER_S)
    return max([own_s, *busy_s])


def class_weights(counts: NDArray[np.int64]) -> list[float]:
    """Weights of a loss that make classes count alike: mean 1 over the rows; 0 for a class without rows.

    Args:
        counts: (classes,) rows of each.
    """
    classes = int((counts > 0).sum())
    rows = int(counts.sum())
    return [rows / (classes * count) if count else 0.0 for count in counts.tolist()]


def _attempts(share: float, most: int) -> float:
    """Expected attempts of one row when each passes with probability `share`: (1 - (1-p)^A) / p."""
    return (1 - (1 - share) ** most) / share if share else float(most)


def _unit_seconds(pinned: Pinned, catalog: Catalog) -> float:
    """Of a sample's step, or an image, over all workers of a model."""
    offers = [each for entry in catalog.entries() for each in entry.ready if each.target == pinned.target]
    workers = sum(offer.workers for offer in offers)
    seconds = CostModel(offers[0].batch_seconds if offers else {}).per_unit_s
    return seconds / max(workers, 1)
