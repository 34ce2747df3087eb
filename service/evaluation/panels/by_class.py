"""Metrics within each class, and the worst class beside what real rows' worst class scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.evaluation.panels.facts import Facts
from service.evaluation.panels.measure import build_metric, interval_of, null_from_draws, widen
from service.evaluation.panels.part import JSON
from service.evaluation.panels.ratios import scaled
from service.evaluation.panels.worst import lowest, widening
from service.evaluation.results import ClassValue, Metric, Null, Panel
from service.evaluation.statistics.estimate import Interval
from service.evaluation.verdicts import judge_value

__all__ = ["ByClass", "Wise", "worst_metrics", "worst_null"]

_MANY = 2**40
"""Draws within classes take different shares of their class; their range is left as it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ByClass:
    """A number of every class.

    Attributes:
        wise: which number.
        classes: as the report shows them.
        ratios: of each class that has one: name, value over real rows', interval.
        null: what the lowest of these ratios is for real rows; None: there is none.
    """

    wise: Wise
    classes: tuple[ClassValue, ...]
    ratios: Sequence[tuple[str, float, Interval | None]]
    null: Null | None


@dataclass(frozen=True, kw_only=True)
class Wise:
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

    def values(self, sample: Sequence[JSON], draws: Sequence[Sequence[JSON]], facts: Facts) -> ByClass:
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
        return ByClass(wise=self, classes=tuple(classes), ratios=ratios, null=worst_null(tables, facts.compared))

    def _class_value(self, name: str, own: JSON, real: Sequence[JSON], unit: float) -> ClassValue:
        shown = unit if self.relative and unit > 0 else 1.0
        real = [scaled(each, shown) for each in real]
        null = null_from_draws(real, 1, _MANY) if real else None
        mean = None if null is None else null.mean
        if own is None or own["value"] is None:
            return ClassValue(class_name=name, value=None, null_mean=mean)
        own = scaled(own, shown)
        verdict = judge_value(own["value"], interval_of(own), null, "higher", self.tolerance)
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
    factor = widening(len(tables))
    known = [null for each in tables if (null := null_from_draws(each, 1, _MANY, logarithmic=logarithmic)) is not None]
    low = min((widen(each.mean, each.range, factor)[0] for each in known), default=1.0)
    return Null(mean=1.0, range=(min(low, 1.0), 1.0), draws=0, rows=rows)


def worst_metrics(found: Iterable[ByClass], facts: Facts) -> list[Metric]:
    """A metric of the worst class for each number, those that decide first."""
    metrics = [_worst_metric(each, facts) for each in found]
    return sorted(metrics, key=lambda each: not each.decides)


def _worst_metric(found: ByClass, facts: Facts) -> Metric:
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
