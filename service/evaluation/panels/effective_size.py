"""Effective size: how many different images the samples are, overall and in each class, relative to real rows.

Both numbers come from the birthday test: the threshold of a collision is calibrated on held-out rows, the real rate of
collisions is that of all training rows in random order, and reference samples of training rows show how the ratio of
two such rates varies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import (
    build_metric,
    estimate_to_json,
    missing,
    null_from_draws,
    null_from_interval,
)
from service.evaluation.panels.parts import (
    JSON,
    MetricPart,
    class_members,
    held_out,
    outputs_of_draws,
    parts_with_draws,
    random_generator,
    reference_sample,
)
from service.evaluation.panels.per_class import PerClassMetric, worst_class_metric
from service.evaluation.results import Metric, Panel
from service.evaluation.statistics.birthday import ENOUGH, Collisions, calibrate, count_collisions, effective_size
from service.evaluation.statistics.intervals import Estimate, rate_ratio_interval

__all__ = ["EFFECTIVE_SIZE_PARTS", "FEWEST_IN_CLASS", "effective_size_metrics"]

FEWEST_IN_CLASS = 20
"""Samples, held-out rows and training rows that a class needs for numbers of its own."""
RATIO_TOLERANCE = 0.75
"""Share of what real rows score. A quarter of it is still near real: sizes of collapsed generators differ by orders of
magnitude."""
WORST_RATIO_TOLERANCE = 0.9
"""The same of one class: a tenth is still near real."""

_ENOUGH_REAL = 100  # collisions counted among all training rows for the rate that samples are compared with
_BIRTHDAY = "birthday"
_STAGE = "counting duplicates"
_MISSING = missing("too few samples or real rows to count duplicates")
_CALIBRATED = "the threshold is calibrated on held-out rows; Arora et al. 2018"
_PER_CLASS = PerClassMetric(name="effective_size_ratio", tolerance=WORST_RATIO_TOLERANCE, decides=True, counts=True)


def _count(draw: int | None, evidence: Evidence, class_id: int | None = None) -> JSON:
    """Count collisions among the samples, or in a reference sample in random order."""
    if draw is None:
        features = evidence.samples.features[class_members(evidence, evidence.samples, class_id)]
    else:
        drawn = reference_sample(evidence, draw, class_id)
        if drawn is None:
            return None
        features = drawn.features[random_generator(evidence.seed, "order", draw).permutation(len(drawn))]
    return _collisions(evidence, features, ENOUGH, class_id)


def _count_real(evidence: Evidence, class_id: int | None = None) -> JSON:
    """Count collisions among all training rows in random order."""
    random = random_generator(evidence.seed, "rate" if class_id is None else f"rate {class_id}")
    rows = random.permutation(class_members(evidence, evidence.training, class_id))
    return _collisions(evidence, evidence.training.features[rows], _ENOUGH_REAL, class_id)


def _collisions(evidence: Evidence, features: NDArray[np.float32], enough: int, class_id: int | None) -> JSON:
    real = held_out(evidence, class_id).features
    if min(len(real), len(features)) < FEWEST_IN_CLASS:
        return None
    threshold = evidence.cached(f"threshold {class_id}", lambda: calibrate(real))
    return asdict(count_collisions(features, threshold, enough=enough))


def _count_classes(draw: int | None, evidence: Evidence) -> JSON:
    return [_count(draw, evidence, class_id) for class_id in range(len(evidence.classes))]


def _count_real_classes(evidence: Evidence) -> JSON:
    return [_count_real(evidence, class_id) for class_id in range(len(evidence.classes))]


EFFECTIVE_SIZE_PARTS: tuple[MetricPart, ...] = (
    MetricPart(name=f"{_BIRTHDAY}.rate", panel=Panel.DIVERSITY, stage=_STAGE, compute=_count_real),
    *parts_with_draws(_BIRTHDAY, Panel.DIVERSITY, _STAGE, _count),
    MetricPart(name=f"{_BIRTHDAY}.classes.rate", panel=Panel.DIVERSITY, stage=_STAGE, compute=_count_real_classes),
    *parts_with_draws(f"{_BIRTHDAY}.classes", Panel.DIVERSITY, _STAGE, _count_classes),
)


def effective_size_metrics(outputs: Mapping[str, JSON], evidence: Evidence) -> list[Metric]:
    """Make metrics of the ratio to real rows, the size itself, and the ratio in the worst class."""
    own, rate = outputs[f"{_BIRTHDAY}.samples"], outputs[f"{_BIRTHDAY}.rate"]
    draws = [_ratio_to_real(each, rate) for each in outputs_of_draws(outputs, _BIRTHDAY)]
    null = null_from_draws(draws, evidence.compared, len(evidence.training), logarithmic=True)
    class_rates = outputs[f"{_BIRTHDAY}.classes.rate"]
    class_ratios, *real_class_ratios = (
        [None if each is None else _ratio_to_real(each, real) for each, real in zip(table, class_rates, strict=True)]
        for table in (outputs[f"{_BIRTHDAY}.classes.samples"], *outputs_of_draws(outputs, f"{_BIRTHDAY}.classes"))
    )
    per_class = _PER_CLASS.compare([each or _MISSING for each in class_ratios], real_class_ratios, evidence)
    features = f"{evidence.samples.features.shape[1]} features of {evidence.extractor}"
    counted = f"duplicates among the first samples until there are enough, in {features}"
    none_found = ""
    if own is not None and not own["count"]:
        none_found = f"None of {own['pairs_compared']} pairs is a duplicate: only the lower bound is known"
    size, real_size = _effective_size(own), _effective_size(rate)
    return [
        build_metric(
            "effective_size_ratio", Panel.DIVERSITY, _ratio_to_real(own, rate), null=null, better="higher",
            tolerance=RATIO_TOLERANCE * (null.mean if null is not None else 1.0), decides=True, samples=_rows(own),
            method=f"effective size over that of training rows; {counted}; {_CALIBRATED}; exact interval of two "
            "Poisson counts, widened where pairs share rows",
            note=none_found,
            classes=per_class.classes,
        ),
        build_metric(
            "effective_size", Panel.DIVERSITY, size, null=null_from_interval(real_size, _rows(rate)), better="higher",
            tolerance=RATIO_TOLERANCE * (real_size["value"] or 0.0), samples=_rows(own),
            method="pairs over duplicates: how many equally likely images would have as many duplicates; "
            f"{counted}; {_CALIBRATED}; exact Poisson interval, widened where pairs share rows",
            note=". ".join(filter(None, (none_found, "The ratio decides"))),
        ),
        worst_class_metric(per_class, evidence),
    ]  # fmt: skip


def _ratio_to_real(own: JSON, rate: JSON) -> JSON:
    """Divide the rate of collisions among real rows by that among samples: the ratio of their effective sizes."""
    if own is None or rate is None or not own["pairs_compared"] or not rate["pairs_compared"]:
        return _MISSING
    real, samples = Collisions(**rate), Collisions(**own)
    # A count that is `dispersion` times as uncertain as a Poisson count is one of that many times fewer events.
    ends = rate_ratio_interval(
        real.count / real.dispersion,
        real.pairs_compared / real.dispersion,
        samples.count / samples.dispersion,
        samples.pairs_compared / samples.dispersion,
    )
    if not real.count or not samples.count:
        where = "samples" if not samples.count else "training rows"
        return estimate_to_json(Estimate(math.inf, ends), f"there is no duplicate among the {where}")
    value = real.count / real.pairs_compared / (samples.count / samples.pairs_compared)
    return estimate_to_json(Estimate(value, ends))


def _effective_size(counted: JSON) -> JSON:
    if counted is None or not counted["pairs_compared"]:
        return _MISSING
    return estimate_to_json(effective_size(Collisions(**counted)))


def _rows(counted: JSON) -> int:
    return 0 if counted is None else int(counted["rows"])
