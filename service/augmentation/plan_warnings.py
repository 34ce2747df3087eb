"""What somebody should know before using a plan, with the numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fount.v1 import augmentation_pb2, model_pb2
from service.augmentation.copy_filter import FEWEST_ROWS, NEIGHBOURS
from service.augmentation.estimate import Trial, source_counts
from service.augmentation.open_plan import OpenPlan
from service.augmentation.slots import Source
from service.augmentation.targets import Cells, Filling

__all__ = ["warnings_of"]

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
