"""Metrics of the birthday test: how many different things, and as a ratio to the real set's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.evaluation.panels.birthday import BIRTHDAY
from service.evaluation.panels.by_class import ByClass, Wise, worst_metrics, worst_null
from service.evaluation.panels.facts import Facts
from service.evaluation.panels.measure import (
    build_metric,
    interval_of,
    null_from_draws,
    null_from_one,
    outputs_of_draws,
    to_json,
)
from service.evaluation.panels.part import JSON
from service.evaluation.results import ClassValue, Metric, Panel
from service.evaluation.statistics.birthday import Collisions, effective_size
from service.evaluation.statistics.estimate import Estimate
from service.evaluation.statistics.intervals import rate_ratio
from service.evaluation.verdicts import judge_value

__all__ = ["effective_metrics"]

RATIO_TOLERANCE = 0.75
"""Of what real rows score. Down to a quarter of that is still near: such sizes are told apart by orders of
magnitude."""
WORST_RATIO_TOLERANCE = 0.9
"""The same of one class: a tenth is still near."""
_CALIBRATED = "the threshold is set on held-out rows; Arora et al. 2018"
_MISSING: JSON = {"value": None, "interval": None, "note": "too few samples or real rows to count duplicates"}


def effective_metrics(outputs: Mapping[str, JSON], facts: Facts) -> list[Metric]:
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
            "effective_size", Panel.DIVERSITY, size, null=null_from_one(real, _rows(rate)), better="higher",
            tolerance=RATIO_TOLERANCE * (real["value"] or 0.0), samples=_rows(own),
            method=f"pairs over duplicates: how many equally likely things would give as many; {counted}; "
            f"{_CALIBRATED}; exact Poisson interval, widened where pairs share rows",
            note=". ".join(filter(None, (_none_found(own), "The ratio decides"))),
        ),
        *worst_metrics([by_class], facts),
    ]  # fmt: skip


def _by_class(outputs: Mapping[str, JSON], facts: Facts) -> ByClass:
    wise = Wise(name="effective_size_ratio", pick=dict, tolerance=WORST_RATIO_TOLERANCE, decides=True, counts=True)
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
    return ByClass(wise=wise, classes=tuple(classes), ratios=ratios, null=null)


def _class_value(name: str, found: JSON, real: Sequence[JSON]) -> ClassValue:
    null = null_from_draws(real, 1, 2**40, logarithmic=True) if real else None
    mean = None if null is None else null.mean
    tolerance = WORST_RATIO_TOLERANCE * (mean or 1.0)
    verdict = judge_value(found["value"], interval_of(found), null, "higher", tolerance)
    return ClassValue(
        class_name=name, value=found["value"], interval=interval_of(found), null_mean=mean, verdict=verdict
    )


def _ratio(own: JSON, rate: JSON) -> JSON:
    """The effective size over the real one: the rate of duplicates among real rows over that among samples."""
    if own is None or rate is None or not own["pairs_compared"] or not rate["pairs_compared"]:
        return _MISSING
    above, below = Collisions(**rate), Collisions(**own)
    ends = rate_ratio(*_independent(above), *_independent(below))
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
