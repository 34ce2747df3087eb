"""The birthday test: how many different things samples are, overall and in each class, beside real rows.

The threshold is set on held-out rows; the real rate is that of all training rows in random order; draws of training
rows show how far the ratio of two such rates strays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import (
    build_metric,
    interval_of,
    null_from_draws,
    null_from_interval,
    outputs_of_draws,
    to_json,
)
from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart, cached_per_evidence
from service.evaluation.panels.per_class import PerClassMetric, PerClassResult, worst_metrics, worst_null
from service.evaluation.panels.reference_sample import (
    DRAWS,
    ImageSet,
    class_reference_sample,
    class_samples,
    classes_of,
    generator,
    held_out_class,
    reference_sample,
)
from service.evaluation.results import ClassValue, Metric, Panel
from service.evaluation.statistics.birthday import ENOUGH, Collisions, calibrate, count_collisions, effective_size
from service.evaluation.statistics.intervals import Estimate, rate_ratio_interval
from service.evaluation.verdicts import compare_with_null

__all__ = ["BIRTHDAY", "BIRTHDAY_PARTS", "ENOUGH_REAL", "FEWEST_IN_CLASS", "effective_metrics"]


BIRTHDAY = "birthday"
ENOUGH_REAL = 100
"""Pairs counted among all training rows, which make the rate that samples are compared with."""
FEWEST_IN_CLASS = 20
"""Samples, held-out rows and training rows that a class needs to be looked at alone."""
_STAGE = "counting duplicates"

Features = NDArray[np.float32]


def _overall(evidence: Evidence) -> JSON:
    return _count(evidence, None, evidence.samples.features, ENOUGH)


def _overall_rate(evidence: Evidence) -> JSON:
    order = generator(evidence.seed, "rate").permutation(len(evidence.training))
    return _count(evidence, None, evidence.training.features[order], ENOUGH_REAL)


def _overall_draw(number: int, evidence: Evidence) -> JSON:
    drawn = reference_sample(evidence, number)
    return None if drawn is None else _count(evidence, None, _shuffled(drawn, evidence, number), ENOUGH)


def _classes(evidence: Evidence) -> JSON:
    return [
        _count(evidence, each, class_samples(evidence, each).features, ENOUGH) for each in range(len(evidence.classes))
    ]


def _classes_rate(evidence: Evidence) -> JSON:
    of = classes_of(evidence, evidence.training)
    found = []
    for each in range(len(evidence.classes)):
        rows = generator(evidence.seed, f"rate {each}").permutation(np.flatnonzero(of == each))
        found.append(_count(evidence, each, evidence.training.features[rows], ENOUGH_REAL))
    return found


def _classes_draw(number: int, evidence: Evidence) -> JSON:
    found: list[JSON] = []
    for each in range(len(evidence.classes)):
        drawn = class_reference_sample(evidence, each, number)
        found.append(None if drawn is None else _count(evidence, each, _shuffled(drawn, evidence, number), ENOUGH))
    return found


def _count(evidence: Evidence, class_id: int | None, features: Features, enough: int) -> JSON:
    """Collisions as JSON, of all classes or of one; None where there are too few rows."""
    held_out = evidence.held_out.features if class_id is None else held_out_class(evidence, class_id).features
    if min(len(held_out), len(features)) < FEWEST_IN_CLASS:
        return None
    threshold = cached_per_evidence(evidence, f"threshold {class_id}", lambda: calibrate(held_out))
    found = count_collisions(features, threshold, enough=enough)
    return asdict(found)


def _shuffled(drawn: ImageSet, evidence: Evidence, number: int) -> Features:
    return drawn.features[generator(evidence.seed, "order", number).permutation(len(drawn))]


def _part(name: str, compute: partial[JSON]) -> MetricPart:
    return MetricPart(name=f"{BIRTHDAY}.{name}", panel=Panel.DIVERSITY, stage=_STAGE, compute=compute)


BIRTHDAY_PARTS: tuple[MetricPart, ...] = (
    _part("samples", partial(_overall)),
    _part("rate", partial(_overall_rate)),
    *(_part(f"real.{number}", partial(_overall_draw, number)) for number in range(DRAWS)),
    _part("classes.samples", partial(_classes)),
    _part("classes.rate", partial(_classes_rate)),
    *(_part(f"classes.real.{number}", partial(_classes_draw, number)) for number in range(DRAWS)),
)


# FOLDED FROM service.evaluation.panels.effective_size:
# Metrics of the birthday test: how many different things, and as a ratio to the real set's.


RATIO_TOLERANCE = 0.75
"""Of what real rows score. Down to a quarter of that is still near: such sizes are told apart by orders of
magnitude."""
WORST_RATIO_TOLERANCE = 0.9
"""The same of one class: a tenth is still near."""
_CALIBRATED = "the threshold is set on held-out rows; Arora et al. 2018"
_MISSING: JSON = {"value": None, "interval": None, "note": "too few samples or real rows to count duplicates"}


def effective_metrics(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> list[Metric]:
    """The sizes, their ratio to real, and the worst class."""
    own, rate = outputs[f"{BIRTHDAY}.samples"], outputs[f"{BIRTHDAY}.rate"]
    draws = [_ratio(each, rate) for each in outputs_of_draws(outputs, BIRTHDAY)]
    null = null_from_draws(draws, facts.compared, facts.training_rows, logarithmic=True)
    by_class = _by_class(outputs, facts)
    counted = (
        f"duplicates among the first samples until there are enough, in {facts.features} features of {facts.extractor}"
    )
    size, real = _size(own), _size(rate)
    return [
        build_metric(
            "effective_size_ratio", Panel.DIVERSITY, _ratio(own, rate), better="higher",
            tolerance=RATIO_TOLERANCE * (null.mean if null is not None else 1.0), null=null, decides=True,
            samples=_rows(own),
            method=f"effective size over that of training rows; {counted}; {_CALIBRATED}; exact interval of two "
            "Poisson counts, widened where pairs share rows",
            note=_none_found(own), classes=by_class.classes,
        ),
        build_metric(
            "effective_size", Panel.DIVERSITY, size, null=null_from_interval(real, _rows(rate)), better="higher",
            tolerance=RATIO_TOLERANCE * (real["value"] or 0.0), samples=_rows(own),
            method=f"pairs over duplicates: how many equally likely things would give as many; {counted}; "
            f"{_CALIBRATED}; exact Poisson interval, widened where pairs share rows",
            note=". ".join(filter(None, (_none_found(own), "The ratio decides"))),
        ),
        *worst_metrics([by_class], facts),
    ]  # fmt: skip


def _by_class(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> PerClassResult:
    wise = PerClassMetric(
        name="effective_size_ratio", pick=dict, tolerance=WORST_RATIO_TOLERANCE, decides=True, counts=True
    )
    own, rates = outputs[f"{BIRTHDAY}.classes.samples"], outputs[f"{BIRTHDAY}.classes.rate"]
    draws = outputs_of_draws(outputs, f"{BIRTHDAY}.classes")
    classes, ratios, tables = [], [], []
    for number, name in enumerate(facts.classes):
        found = _ratio(own[number], rates[number])
        real = [_ratio(each[number], rates[number]) for each in draws if each[number] is not None]
        known = [each for each in real if each["value"] is not None]
        classes.append(_class_value(name, found, known))
        if found["value"] is not None:
            ratios.append((name, found["value"], interval_of(found)))
            tables.append(known)
    null = worst_null([each for each in tables if each], facts.compared, logarithmic=True)
    return PerClassResult(wise=wise, classes=tuple(classes), ratios=ratios, null=null)


def _class_value(name: str, found: JSON, real: Sequence[JSON]) -> ClassValue:
    null = null_from_draws(real, 1, 2**40, logarithmic=True) if real else None
    mean = None if null is None else null.mean
    tolerance = WORST_RATIO_TOLERANCE * (mean or 1.0)
    verdict = compare_with_null(found["value"], interval_of(found), null, "higher", tolerance)
    return ClassValue(
        class_name=name, value=found["value"], interval=interval_of(found), null_mean=mean, verdict=verdict
    )


def _ratio(own: JSON, rate: JSON) -> JSON:
    """The effective size over the real one: the rate of duplicates among real rows over that among samples."""
    if own is None or rate is None or not own["pairs_compared"] or not rate["pairs_compared"]:
        return _MISSING
    above, below = Collisions(**rate), Collisions(**own)
    ends = rate_ratio_interval(*_independent(above), *_independent(below))
    if not above.count or not below.count:
        where = "samples" if not below.count else "training rows"
        output: JSON = to_json(Estimate(float("inf"), ends), f"there is no duplicate among the {where}")
        return output
    return to_json(Estimate(above.count / above.pairs_compared / (below.count / below.pairs_compared), ends))


def _independent(found: Collisions) -> tuple[float, float]:
    """The count of independent pairs that is as uncertain, and what it was taken of."""
    return found.count / found.dispersion, found.pairs_compared / found.dispersion


def _size(found: JSON) -> JSON:
    if found is None or not found["pairs_compared"]:
        return _MISSING
    return to_json(effective_size(Collisions(**found)))


def _none_found(own: JSON) -> str:
    if own is None or own["count"]:
        return ""
    return f"None of {own['pairs_compared']} pairs is a duplicate: the lower end of the interval is what can be said"


def _rows(found: JSON) -> int:
    return 0 if found is None else int(found["rows"])
