"""Metrics within each class, and the worst class beside what real rows' worst class scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from service.evaluation.panels.estimates import build_metric, interval_of, null_from_draws, widen
from service.evaluation.panels.part import JSON, EvidenceSummary
from service.evaluation.results import ClassValue, Metric, Null, Panel
from service.evaluation.statistics.intervals import Interval
from service.evaluation.verdicts import compare_with_null

__all__ = [
    "PerClassMetric",
    "PerClassResult",
    "bonferroni_factor",
    "lowest",
    "over",
    "relative_to_reference",
    "scaled",
    "worst_metrics",
    "worst_null",
]


_MANY = 2**40
"""Draws within classes take different shares of their class; their range is left as it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PerClassResult:
    """A number of every class.

    Attributes:
        wise: which number.
        classes: as the report shows them.
        ratios: of each class that has one: name, value over real rows', interval.
        null: what the lowest of these ratios is for real rows; None: there is none.
    """

    wise: PerClassMetric
    classes: tuple[ClassValue, ...]
    ratios: Sequence[tuple[str, float, Interval | None]]
    null: Null | None


@dataclass(frozen=True, kw_only=True)
class PerClassMetric:
    """A number that is taken within each class.

    Attributes:
        name: of the metric.
        pick: what a class left to its output.
        tolerance: of the worst class, as a ratio to real rows'.
        decides: the worst class decides.
        relative: shown as a ratio to real rows'; else as it is.
        counts: a ratio of counts; then the tolerance is a share of what real rows score.
    """

    name: str
    pick: Callable[[JSON], JSON]
    tolerance: float
    decides: bool = False
    relative: bool = True
    counts: bool = False

    def values(self, sample: Sequence[JSON], draws: Sequence[Sequence[JSON]], facts: EvidenceSummary) -> PerClassResult:
        """Compare every class with draws of its training rows.

        Args:
            sample: what each class of the samples left; None: too few.
            draws: the same of each draw of training rows.
            facts: names of the classes.
        """
        classes, ratios, tables = [], [], []
        for number, name in enumerate(facts.classes):
            own = None if sample[number] is None else self.pick(sample[number])
            real = [self.pick(each[number]) for each in draws if each[number] is not None]
            known = [each["value"] for each in real if each["value"] is not None]
            unit = float(np.mean(known)) if known else 0.0
            classes.append(self._class_value(name, own, real, unit))
            if own is not None and own["value"] is not None and unit > 0:
                ratio = scaled(own, unit)
                ratios.append((name, ratio["value"], interval_of(ratio)))
                tables.append([scaled(each, unit) for each in real])
        return PerClassResult(wise=self, classes=tuple(classes), ratios=ratios, null=worst_null(tables, facts.compared))

    def _class_value(self, name: str, own: JSON, real: Sequence[JSON], unit: float) -> ClassValue:
        shown = unit if self.relative and unit > 0 else 1.0
        real = [scaled(each, shown) for each in real]
        null = null_from_draws(real, 1, _MANY) if real else None
        mean = None if null is None else null.mean
        if own is None or own["value"] is None:
            return ClassValue(class_name=name, value=None, null_mean=mean)
        own = scaled(own, shown)
        verdict = compare_with_null(own["value"], interval_of(own), null, "higher", self.tolerance)
        return ClassValue(
            class_name=name, value=own["value"], interval=interval_of(own), null_mean=mean, verdict=verdict
        )


def worst_null(tables: Sequence[Sequence[JSON]], rows: int, *, logarithmic: bool = False) -> Null | None:
    """What the lowest ratio over classes is for real rows.

    Args:
        tables: of each class the outputs of the draws, as ratios to their mean.
        rows: how many rows a draw has, over all classes.
        logarithmic: as in `null_from_draws`.

    Returns:
        Where every class has several draws, where the lowest of further ones lies. Else from the lowest class's widened
        range to 1; a class of a single draw has that draw's interval.
    """
    if not tables:
        return None
    draws = min(len(each) for each in tables)
    if draws > 1 and all(output["value"] is not None for each in tables for output in each[:draws]):
        # Each draw is measured by the mean of the others, as samples are by the mean of all.
        table = np.array([[output["value"] for output in each[:draws]] for each in tables])
        others = (table.sum(axis=1, keepdims=True) - table) / (draws - 1)
        worst = (table / np.maximum(others, 1e-12)).min(axis=0)
        outputs = [{"value": float(each), "interval": None} for each in worst]
        return null_from_draws(outputs, rows, _MANY, logarithmic=logarithmic)
    factor = bonferroni_factor(len(tables))
    known = [null for each in tables if (null := null_from_draws(each, 1, _MANY, logarithmic=logarithmic)) is not None]
    low = min((widen(each.mean, each.range, factor)[0] for each in known), default=1.0)
    return Null(mean=1.0, range=(min(low, 1.0), 1.0), draws=0, rows=rows)


def worst_metrics(found: Iterable[PerClassResult], facts: EvidenceSummary) -> list[Metric]:
    """A metric of the worst class for each number, those that decide first."""
    metrics = [_worst_metric(each, facts) for each in found]
    return sorted(metrics, key=lambda each: not each.decides)


def _worst_metric(found: PerClassResult, facts: EvidenceSummary) -> Metric:
    output, note = lowest(found.ratios)
    scale = found.null.mean if found.wise.counts and found.null is not None else 1.0
    what = found.wise.name.removesuffix("_ratio").replace("_", " ")
    return build_metric(
        f"worst_class_{found.wise.name}", Panel.DIVERSITY, output, null=found.null, better="higher",
        tolerance=found.wise.tolerance * scale, decides=found.wise.decides, samples=facts.compared, note=note,
        method=f"the lowest over classes of {what} over as many training rows' in that class; interval widened for "
        f"taking "
        "the lowest; real: the lowest of draws of training rows",
    )  # fmt: skip


# FOLDED FROM service.evaluation.panels.per_class:
# The worst class: the lowest of many numbers, with an interval that has been told that it is the lowest.


def bonferroni_factor(classes: int) -> float:
    """By how much a 95 % interval grows so that those of all classes hold together (Bonferroni)."""
    return float(stats.norm.isf(0.025 / max(1, classes)) / stats.norm.isf(0.025))


def lowest(ratios: Sequence[tuple[str, float, Interval | None]]) -> tuple[Mapping[str, JSON], str]:
    """The lowest number of all classes.

    Args:
        ratios: of each class that has one: its name, the number as a ratio to real rows', its 95 % interval.

    Returns:
        An output with the value and the widened interval, and a note that names the class.
    """
    if not ratios:
        return {"value": None, "interval": None, "note": "no class has enough samples and rows"}, ""
    name, value, interval = min(ratios, key=lambda each: each[1])
    ends = None if interval is None else list(widen(value, interval, bonferroni_factor(len(ratios))))
    return {"value": value, "interval": ends, "note": ""}, f"The lowest is of class {name!r}"


# FOLDED FROM service.evaluation.panels.per_class:
# Ratios of numbers with intervals.


def over(above: Mapping[str, JSON], below: Mapping[str, JSON]) -> JSON:
    """One output over another, the relative half widths of their intervals added in squares.

    That takes them for independent. Both are of one set against the same real rows, and move together if at all, so the
    interval is rather too wide.
    """
    if above["value"] is None or not below["value"]:
        note = above["note"] or below["note"] or "the number below the line is 0"
        return {"value": None, "interval": None, "note": note}
    value = above["value"] / below["value"]
    first, second = interval_of(above), interval_of(below)
    if first is None or second is None:
        return {"value": value, "interval": None, "note": ""}
    down = math.hypot(
        (above["value"] - first[0]) / below["value"], value * (second[1] - below["value"]) / below["value"]
    )
    up = math.hypot((first[1] - above["value"]) / below["value"], value * (below["value"] - second[0]) / below["value"])
    return {"value": value, "interval": [max(0.0, value - down), value + up], "note": ""}


def scaled(output: Mapping[str, JSON], unit: float) -> JSON:
    """An output in another unit."""
    ends = interval_of(output)
    value = None if output["value"] is None else output["value"] / unit
    return {"value": value, "interval": None if ends is None else [end / unit for end in ends], "note": output["note"]}


def relative_to_reference(
    sample: Mapping[str, JSON], draws: Sequence[Mapping[str, JSON]], rows: int, of: int
) -> tuple[JSON, Null | None]:
    """An output, and what real rows score, as ratios to the mean of what real rows score.

    Args:
        sample: of the samples.
        draws: of training rows in their place.
        rows: how many a draw has.
        of: how many they were drawn from.
    """
    values = [each["value"] for each in draws if each["value"] is not None]
    unit = float(np.mean(values)) if values else 0.0
    if unit <= 0:
        return {"value": None, "interval": None, "note": sample["note"] or "real rows score 0 or nothing"}, None
    real = [scaled(each, unit) for each in draws]
    return scaled(sample, unit), null_from_draws(real, rows, of)
