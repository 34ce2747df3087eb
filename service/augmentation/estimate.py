"""What a plan will cost and lose: a trial of its generator, and the time that pulling takes.

An open plan enters; a `Trial` leaves, drawn at the plan's own addresses, so equal plans have equal estimates of what is
refused. Time is told from what workers' batches took at warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.readers import DataError
from fount.v1 import augmentation_pb2, model_pb2
from service.augmentation.copy_filter import FEWEST_ROWS, NEIGHBOURS, CopyFilters
from service.augmentation.open_plan import OpenPlan, Pinned
from service.augmentation.slots import Source
from service.augmentation.synthesis import Synthesiser
from service.augmentation.targets import Cells, Filling
from service.catalog import Catalog
from service.errors import DatasetUnreadable
from service.scheduler.inference import InferenceClient, RequestContext
from service.scheduler.timing import CostModel

__all__ = ["Trial", "class_weights", "pull_seconds", "source_counts", "try_generator", "warnings_of"]


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


async def try_generator(
    plan: OpenPlan, copies: CopyFilters, inference: InferenceClient, context: RequestContext
) -> Trial:
    """Draw first attempts of every synthesised class, or of the largest where there are many.

    Raises:
        DatasetUnreadable: a training row cannot be read. Also whatever `InferenceClient` raises.
    """
    wanted = {each.label: each.count for each in plan.layout.strata if each.source is Source.SYNTHESISED}
    tried = sorted(sorted(wanted, key=lambda label: -wanted[label])[:_MOST_CLASSES])
    each = max(_FEWEST_OF_CLASS, _SAMPLES // len(tried))
    labels = np.repeat(np.array(tried, np.uint32), each)
    synthesiser = Synthesiser(replace(plan, attempts=1), copies.of(plan.dataset, plan.split), inference)
    try:
        made = await synthesiser.rows(np.arange(len(labels), dtype=np.uint64), labels, context)
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


# FOLDED FROM service.augmentation.estimate:
# What somebody should know before using a plan, with the numbers.


Warning_ = augmentation_pb2.PlanWarning

_PRIOR_SHIFT = 0.02  # of all rows, in classes other than those of the data
_WEAK = {"label-accuracy": 0.9, "within-class-distance-ratio": 0.7}
_WEAK_CONFIDENCE = 0.8
_MANY_REJECTED = 0.1  # of a class's synthesised slots
_SHOWN = 8


def warnings_of(
    plan: OpenPlan, *, cells: Cells, filling: Filling, trial: Trial | None, copy_quantile: float, not_verified: str
) -> list[Warning_]:
    """All of them.

    Args:
        plan: as planned.
        cells: rows of the split by class and group.
        filling: what its target came to.
        trial: of its generator; None where nothing is synthesised.
        copy_quantile: of the copy filter; 0: none was wanted.
        not_verified: why labels of transformed rows were not verified; empty when they were, or none is transformed.
    """
    found = [*_prior(plan, cells), *_empty(plan, filling), *_capped(plan, filling)]
    if trial:
        found += [*_weak_card(plan), *_weak_classes(plan, trial), *_rejecting(plan, trial)]
        found += _copies(plan, cells, copy_quantile)
    if not_verified:
        found.append(Warning_(reason="NOT_VERIFIED", message=not_verified))
    if plan.split.name == "test":
        message = "the rows come from the split test; what is trained on them can no longer be tested on it"
        found.append(Warning_(reason="TRAINED_ON_TEST", message=message))
    return found


def _prior(plan: OpenPlan, cells: Cells) -> list[Warning_]:
    """Tell when classes are to be as likely as they are not in the data, by the class that changes most."""
    target = np.zeros(len(cells))
    for each in plan.layout.strata:
        target[each.label] += each.count
    data, target = cells.sum(axis=1) / max(1, cells.sum()), target / target.sum()
    if np.abs(target - data).sum() / 2 < _PRIOR_SHIFT:
        return []
    most = int(np.abs(target - data).argmax())
    message = (
        f"class {plan.dataset.classes[most]!r} is {data[most]:.1%} of the data and {target[most]:.1%} of the plan: "
        "a classifier trained on it expects the plan's shares, so correct its prior where the data's hold"
    )
    return [Warning_(reason="PRIOR_CHANGED", message=message)]


def _empty(plan: OpenPlan, filling: Filling) -> list[Warning_]:
    found, dataset = [], plan.dataset
    classes = [label for label, group in filling.left_empty if group is None]
    cells = [(label, group) for label, group in filling.left_empty if group is not None]
    if filling.made_alone:
        names = _names(dataset.classes, filling.made_alone)
        found.append(Warning_(reason="CLASS_EMPTY", message=f"no real row of {names}: the generator makes all of it"))
    if classes:
        names = _names(dataset.classes, classes)
        found.append(Warning_(reason="CLASS_EMPTY", message=f"no row of {names} to make others from: it stays empty"))
    if cells:
        shown = ", ".join(f"{dataset.classes[k]!r} of {dataset.groups[g]!r}" for k, g in cells[:_SHOWN])
        more = f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""
        found.append(Warning_(reason="GROUP_EMPTY", message=f"no row of {shown}{more}: groups stay empty"))
    return found


def _capped(plan: OpenPlan, filling: Filling) -> list[Warning_]:
    found = []
    for each in filling.capped[:_SHOWN]:
        rest = f"{each.missing} rows are missing" if each.missing else "other sources make up for the rest"
        message = (
            f"class {plan.dataset.classes[each.label]!r} gets {each.allowed} synthesised rows, not {each.wished}, "
            f"by mix.max_synthetic_ratio; {rest}"
        )
        found.append(Warning_(reason="CAPPED", message=message))
    return found


def _weak_card(plan: OpenPlan) -> list[Warning_]:
    """Tell what the generator's card says against it."""
    if plan.generator is None:
        return []
    model, found = plan.generator.model, []
    for quality in model_pb2.Model.FromString(model.card).quality:
        if quality.value < _WEAK.get(quality.metric, -np.inf):
            message = (
                f"{model.key.name} has a {quality.metric} of {quality.value:.3g} "
                f"({quality.interval.min:.3g} to {quality.interval.max:.3g}), below {_WEAK[quality.metric]:g}"
            )
            found.append(Warning_(reason="GENERATOR_WEAK", message=message))
    return found


def _weak_classes(plan: OpenPlan, trial: Trial) -> list[Warning_]:
    """Tell of which classes the trial's samples convinced the classifier least."""
    weak = [k for k in np.argsort(trial.confidences, kind="stable") if trial.confidences[k] < _WEAK_CONFIDENCE]
    if not weak or plan.generator is None or plan.classifier is None:
        return []
    shown = ", ".join(
        f"{plan.dataset.classes[trial.labels[k]]!r} ({trial.confidences[k]:.0%} sure, {trial.accepted[k]:.0%} accepted)"
        for k in weak[:_SHOWN]
    )
    message = (
        f"{plan.classifier.model.key.name} is on average less than {_WEAK_CONFIDENCE:.0%} sure of what "
        f"{plan.generator.model.key.name} makes of {shown}"
    )
    return [Warning_(reason="GENERATOR_WEAK", message=message)]


def _rejecting(plan: OpenPlan, trial: Trial) -> list[Warning_]:
    """Tell of which classes the filters leave slots without a sample, however sure the classifier is on average."""
    rejected = (1 - trial.accepted) ** plan.attempts
    most = [k for k in np.argsort(-rejected, kind="stable") if rejected[k] > _MANY_REJECTED]
    if not most:
        return []
    shown = ", ".join(f"{plan.dataset.classes[trial.labels[k]]!r} {rejected[k]:.0%}" for k in most[:_SHOWN])
    message = (
        f"about {trial.expected_rejected:,.0f} of {source_counts(plan)[Source.SYNTHESISED]:,} synthesised slots will "
        f"be rejected, of {shown}: lower synthesis.min_confidence or copy_quantile, or allow more attempts"
    )
    return [Warning_(reason="GENERATOR_WEAK", message=message)]


def _copies(plan: OpenPlan, cells: Cells, copy_quantile: float) -> list[Warning_]:
    if not source_counts(plan)[Source.SYNTHESISED]:
        return []
    if not plan.copy_threshold:
        why = (
            f"more than {copy_quantile:.2%} of the held-out rows are training rows themselves, or no class of them has "
            f"{FEWEST_ROWS} training rows, so there is no threshold; take rows out that are in both splits"
            if copy_quantile
            else "synthesis.copy_quantile is 0"
        )
        message = f"nothing keeps synthesised rows from being copies of training rows: {why}"
        return [Warning_(reason="COPY_FILTER_OFF", message=message)]
    made = {each.label for each in plan.layout.strata if each.source is Source.SYNTHESISED}
    counts: NDArray[np.int64] = cells.sum(axis=1)
    found = []
    if few := [label for label in sorted(made) if FEWEST_ROWS <= counts[label] < NEIGHBOURS]:
        message = f"{_names(plan.dataset.classes, few)} has fewer than {NEIGHBOURS} rows: its copy filter is coarse"
        found.append(Warning_(reason="FEW_ROWS", message=message))
    if none := [label for label in sorted(made) if counts[label] < FEWEST_ROWS]:
        message = f"{_names(plan.dataset.classes, none)} has fewer than {FEWEST_ROWS} rows: nothing filters its copies"
        found.append(Warning_(reason="FEW_ROWS", message=message))
    return found


def _names(classes: tuple[str, ...], labels: list[int]) -> str:
    shown = ", ".join(repr(classes[label]) for label in labels[:_SHOWN])
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return f"class {shown}{more}" if len(labels) == 1 else f"each of the classes {shown}{more}"
