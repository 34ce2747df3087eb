"""Estimate what a plan costs and loses, and warn of what its user should know, with the numbers.

An open plan and the trials of its models enter (`trial.py`); seconds and warnings leave. Pull time is computed from
what workers' batches took at warm-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.augmentation.copy_filter import FEWEST_ROWS, NEIGHBOURS, Calibration
from service.augmentation.plan_spec import SECTIONS, GenerationSpec, OpenPlan, PlanSpec, held_out_split
from service.augmentation.slots import Source
from service.augmentation.trial import Trial
from service.catalog import Catalog, PinnedModel
from service.scheduler.timing import CostModel

__all__ = ["PlanWarning", "class_weights", "find_warnings", "pull_seconds"]

_ROW_S, _BYTES_PER_S = 2e-6, 200e6  # of the gateway's own work: a row, and its bytes

_PRIOR_SHIFT = 0.02  # of all rows, in classes other than those of the data
_WEAK_METRICS = {"label-accuracy": 0.9, "within-class-distance-ratio": 0.7}
_WEAK_CONFIDENCE = 0.8
_MANY_REJECTED = 0.1  # of a class's slots of one source
_SHOWN, _SHOWN_ROWS = 8, 20
_COPY_RATIO = 0.25  # a row four times nearer to one training row than to the next ones is like a copy of it


class PlanWarning(NamedTuple):
    """Something to know before using a plan.

    Attributes:
        reason: an UPPER_SNAKE word for programs, of those listed at fount.v1.PlanWarning.
        message: one sentence with the numbers.
    """

    reason: str
    message: str


def pull_seconds(plan: OpenPlan, trials: Sequence[Trial], catalog: Catalog) -> float:
    """Estimate how long pulling all rows takes on idle workers: models and the gateway work at the same time."""
    own_s = plan.layout.count * (_ROW_S + float(np.prod(plan.spec.dataset.shape)) / _BYTES_PER_S)
    work = [(plan.transformer, float(plan.count(Source.TRANSFORMED)))]
    for trial in trials:
        drawn = trial.rows * trial.expected_attempts
        work += [(trial.spec.model, drawn * trial.spec.steps), (trial.spec.classifier, drawn)]
    return max([own_s, *(units * _unit_seconds(model, catalog) for model, units in work if model and units)])


def _unit_seconds(pinned: PinnedModel, catalog: Catalog) -> float:
    """Estimate the seconds of one step of a sample, or of one image, over all workers of a model."""
    offers = [each for entry in catalog.entries() for each in entry.ready if each.target == pinned.target]
    workers = sum(offer.workers for offer in offers)
    seconds = CostModel(offers[0].batch_seconds if offers else {}).per_unit_s
    return seconds / max(workers, 1)


def class_weights(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Return weights of a loss that make classes count equally: mean 1 over the rows; 0 for a class without rows.

    Args:
        counts: (classes,) rows of each.
    """
    classes = int((counts > 0).sum())
    rows = int(counts.sum())
    return tuple(rows / (classes * count) if count else 0.0 for count in counts.tolist())


# --- Warnings ---------------------------------------------------------------------------------------------------------


def find_warnings(
    plan: OpenPlan, trials: Sequence[Trial], calibration: Calibration | None, not_verified: str | None
) -> list[PlanWarning]:
    """Find everything to warn of.

    Args:
        plan: the plan.
        trials: of the models that generate rows.
        calibration: of its copy filter; None: it has none.
        not_verified: why labels of transformed rows were not verified; None: they were, or none is transformed.
    """
    found = [*_prior(plan), *_empty(plan.spec), *_capped(plan.spec)]
    for trial in trials:
        found += [*_weak_card(trial.spec), *_weak_classes(plan, trial), *_rejecting(plan, trial)]
        found += _copies(plan, trial.spec) if trial.spec.source is Source.SYNTHESISED else _unchecked(trial.spec)
    if calibration:
        found += _leaks(plan, calibration)
    if not_verified:
        found.append(PlanWarning("NOT_VERIFIED", not_verified))
    if plan.spec.split.name == "test":
        message = "the rows come from the split test; what is trained on them can no longer be tested on it"
        found.append(PlanWarning("TRAINED_ON_TEST", message))
    return found


def _prior(plan: OpenPlan) -> Iterator[PlanWarning]:
    """Warn when the plan has other class shares than the data; name the class that changes most."""
    target = np.zeros(len(plan.spec.cells))
    for each in plan.layout.strata:
        target[each.label] += each.count
    data, target = plan.spec.cells.sum(axis=1) / max(1, plan.spec.cells.sum()), target / target.sum()
    most = int(np.abs(target - data).argmax())
    if np.abs(target - data).sum() / 2 >= _PRIOR_SHIFT:
        message = (
            f"{_names(plan.spec, [most])} is {data[most]:.1%} of the data and {target[most]:.1%} of the plan: a "
            "classifier trained on it expects the plan's shares, so correct its prior where the data's hold"
        )
        yield PlanWarning("PRIOR_CHANGED", message)


def _empty(spec: PlanSpec) -> Iterator[PlanWarning]:
    dataset, allocation = spec.dataset, spec.allocation
    classes = [label for label, group in allocation.left_empty if group is None]
    cells = [(label, group) for label, group in allocation.left_empty if group is not None]
    if allocation.synthesised_alone:
        names = _names(spec, allocation.synthesised_alone)
        yield PlanWarning("CLASS_EMPTY", f"no real row of {names}: the generator makes all of it")
    if classes:
        yield PlanWarning("CLASS_EMPTY", f"no row of {_names(spec, classes)} to make others from: it stays empty")
    if cells:
        shown = ", ".join(f"{dataset.classes[k]!r} of {dataset.groups[g]!r}" for k, g in cells[:_SHOWN])
        more = f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""
        yield PlanWarning("GROUP_EMPTY", f"no row of {shown}{more}: groups stay empty")


def _capped(spec: PlanSpec) -> Iterator[PlanWarning]:
    for each in spec.allocation.caps_reached[:_SHOWN]:
        rest = f"{each.missing} rows are missing" if each.missing else "other sources make up for the rest"
        counts = f"{each.allowed} generated rows, not {each.requested}"
        yield PlanWarning("CAPPED", f"{_names(spec, [each.label])} gets {counts}, by mix.max_synthetic_ratio; {rest}")


def _weak_card(spec: GenerationSpec) -> Iterator[PlanWarning]:
    """Warn of low quality figures in the model's card."""
    model = spec.model.model
    for figure in model.quality:
        if figure.value < _WEAK_METRICS.get(figure.metric, -np.inf):
            low, high = figure.interval
            message = (
                f"{model.key.name} has a {figure.metric} of {figure.value:.3g} "
                f"({low:.3g} to {high:.3g}), below {_WEAK_METRICS[figure.metric]:g}"
            )
            yield PlanWarning("GENERATOR_WEAK", message)


def _weak_classes(plan: OpenPlan, trial: Trial) -> Iterator[PlanWarning]:
    """Warn of the classes whose rows have a low mean confidence."""
    weak = [k for k in np.argsort(trial.confidences, kind="stable") if trial.confidences[k] < _WEAK_CONFIDENCE]
    if not weak or trial.spec.classifier is None:
        return
    classes = plan.spec.dataset.classes
    shown = ", ".join(
        f"{classes[trial.labels[k]]!r} ({trial.confidences[k]:.0%} sure, {trial.accepted[k]:.0%} accepted)"
        for k in weak[:_SHOWN]
    )
    classifier, generator = trial.spec.classifier.model.key.name, trial.spec.model.model.key.name
    limit = f"less than {_WEAK_CONFIDENCE:.0%}"
    yield PlanWarning("GENERATOR_WEAK", f"{classifier} is on average {limit} sure of what {generator} makes of {shown}")


def _rejecting(plan: OpenPlan, trial: Trial) -> Iterator[PlanWarning]:
    """Warn of the classes whose slots the filters often leave empty."""
    spec, rejected = trial.spec, trial.rejected
    most = [k for k in np.argsort(-rejected, kind="stable") if rejected[k] > _MANY_REJECTED]
    if not most:
        return
    shown = ", ".join(f"{plan.spec.dataset.classes[trial.labels[k]]!r} {rejected[k]:.0%}" for k in most[:_SHOWN])
    is_sample = spec.source is Source.SYNTHESISED
    remedies = " or copy_quantile, or allow more attempts" if is_sample else ", or name another model"
    message = (
        f"about {trial.expected_rejected:,.0f} of {trial.rows:,} {spec.source.name.lower()} slots will be "
        f"rejected, of {shown}: lower {SECTIONS[spec.source]}.min_confidence{remedies}"
    )
    yield PlanWarning("GENERATOR_WEAK", message)


def _unchecked(spec: GenerationSpec) -> Iterator[PlanWarning]:
    """Warn of rows whose label may have changed, and that nothing checks."""
    if spec.classifier is None:
        message = (
            f"nothing checks that {spec.model.model.key.name} keeps labels: name a classifier in "
            f"{SECTIONS[spec.source]}.classifier, with a min_confidence above 0"
        )
        yield PlanWarning("NOT_VERIFIED", message)


def _copies(plan: OpenPlan, synthesis: GenerationSpec) -> Iterator[PlanWarning]:
    if not plan.copy_threshold:
        why = (
            f"all held-out rows are training rows themselves, or no class of them has {FEWEST_ROWS} different training "
            "rows, so there is no threshold; remove rows that are in both splits"
            if synthesis.copy_quantile
            else "synthesis.copy_quantile is 0"
        )
        yield PlanWarning(
            "COPY_FILTER_OFF", f"nothing keeps synthesised rows from being copies of training rows: {why}"
        )
        return
    synthesised = sorted(plan.spec.allocation.labels_of(Source.SYNTHESISED))
    counts: NDArray[np.int64] = plan.spec.cells.sum(axis=1)
    if few := [label for label in synthesised if FEWEST_ROWS <= counts[label] < NEIGHBOURS]:
        yield PlanWarning(
            "FEW_ROWS", f"{_names(plan.spec, few)} has fewer than {NEIGHBOURS} rows: its copy filter is coarse"
        )
    if none := [label for label in synthesised if counts[label] < FEWEST_ROWS]:
        yield PlanWarning(
            "FEW_ROWS", f"{_names(plan.spec, none)} has fewer than {FEWEST_ROWS} rows: nothing filters its copies"
        )


def _leaks(plan: OpenPlan, calibration: Calibration) -> Iterator[PlanWarning]:
    """Warn of rows that calibrate the filter and are training rows, or like copies of them."""
    held_out = held_out_split(plan.spec.dataset, plan.spec.split)
    name, leaked = held_out.name if held_out else "", calibration.leaked
    if len(leaked):
        shown = ", ".join(map(str, leaked[:_SHOWN_ROWS].tolist()))
        more = f" and {len(leaked) - _SHOWN_ROWS:,} more" if len(leaked) > _SHOWN_ROWS else ""
        message = (
            f"{len(leaked):,} of {calibration.tried:,} rows of {name} tried for the copy filter equal a training row, "
            f"pixel for pixel, and were left out: rows {shown}{more}; remove them from {name}"
        )
        yield PlanWarning("LEAKED_ROWS", message)
    if 0 < calibration.threshold <= _COPY_RATIO:
        message = (
            f"the copy filter refuses samples only below a ratio of {calibration.threshold:.2g}, since rows of {name} "
            "are as near to training rows: copies with a little more noise pass; remove the rows that nearly equal "
            f"training rows from {name}"
        )
        yield PlanWarning("COPY_FILTER_WEAK", message)


def _names(spec: PlanSpec, labels: list[int]) -> str:
    shown = ", ".join(repr(spec.dataset.classes[label]) for label in labels[:_SHOWN])
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return f"class {shown}{more}" if len(labels) == 1 else f"each of the classes {shown}{more}"
