"""Metrics within each class, and the worst class compared with the worst class of real rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import (
    build_metric,
    interval_of,
    missing,
    null_from_draws,
    scale_estimate,
    widen_interval,
)
from service.evaluation.panels.parts import JSON
from service.evaluation.results import ClassValue, Metric, Null, Panel
from service.evaluation.statistics.intervals import TAIL, Interval
from service.evaluation.verdicts import compare_with_null

__all__ = ["ClassRatio", "PerClassMetric", "PerClassResult", "null_of_worst_class", "worst_class", "worst_class_metric"]

ClassRatio = tuple[str, float, Interval | None]
"""The name of a class, its value as a ratio to that of real rows, and the interval of the ratio."""


_UNCORRECTED = 2**40  # as many rows to draw from: draws take different shares of each class, so there is no correction


@dataclass(frozen=True, kw_only=True)
class PerClassMetric:
    """A metric that is computed within each class.

    Attributes:
        name: of the metric.
        tolerance: of a class, as a ratio to real rows.
        decides: whether the panel's verdict rests on the worst class.
        relative: shown as a ratio to real rows; else as it is.
        counts: outputs are ratios of counts already; then the tolerance is a share of what real rows score.
    """

    name: str
    tolerance: float
    decides: bool = False
    relative: bool = True
    counts: bool = False

    def compare(self, own: Sequence[JSON], draws: Sequence[Sequence[JSON]], evidence: Evidence) -> PerClassResult:
        """Compare every class with reference samples of its training rows.

        Args:
            own: the output of each class of the samples; None: too few samples or rows.
            draws: the same of each reference sample.
            evidence: of the evaluation.
        """
        values, ratios, tables = [], [], []
        for name, output, real in zip(evidence.classes, own, zip(*draws, strict=True), strict=True):
            outputs = [each for each in real if each is not None]
            known = [each for each in outputs if each["value"] is not None]
            unit = 1.0 if self.counts else float(np.mean([each["value"] for each in known])) if known else 0.0
            values.append(self._class_value(name, output, outputs, unit))
            if output is not None and output["value"] is not None and unit > 0:
                ratio = scale_estimate(output, unit)
                ratios.append((name, ratio["value"], interval_of(ratio)))
                tables.append([scale_estimate(each, unit) for each in (known if self.counts else outputs)])
        null = null_of_worst_class([each for each in tables if each], evidence.compared, logarithmic=self.counts)
        return PerClassResult(metric=self, classes=tuple(values), ratios=ratios, null=null)

    def _class_value(self, name: str, output: JSON, real: Sequence[JSON], unit: float) -> ClassValue:
        shown_unit = unit if self.relative and unit > 0 else 1.0
        null = null_from_draws(
            [scale_estimate(each, shown_unit) for each in real], 1, _UNCORRECTED, logarithmic=self.counts
        )
        mean = None if null is None else null.mean
        if output is None:
            return ClassValue(class_name=name, value=None, null_mean=mean)
        shown = scale_estimate(output, shown_unit)
        value, interval = shown["value"], interval_of(shown)
        tolerance = self.tolerance * (mean or 1.0) if self.counts else self.tolerance
        verdict = compare_with_null(value, interval, null, "higher", tolerance)
        return ClassValue(class_name=name, value=value, interval=interval, null_mean=mean, verdict=verdict)


@dataclass(frozen=True, kw_only=True, eq=False)
class PerClassResult:
    """A metric's values within each class.

    Attributes:
        metric: which.
        classes: as the report shows them.
        ratios: of the classes that have one.
        null: of the lowest of these ratios for real rows; None: there is none.
    """

    metric: PerClassMetric
    classes: tuple[ClassValue, ...]
    ratios: Sequence[ClassRatio]
    null: Null | None


def worst_class(ratios: Sequence[ClassRatio]) -> tuple[JSON, str]:
    """Find the lowest ratio; its interval is widened for having chosen it.

    Returns:
        An output with the value and the widened interval, and a note that names the class.
    """
    if not ratios:
        return missing("no class has enough samples and rows"), ""
    name, value, interval = min(ratios, key=lambda each: each[1])
    ends = None if interval is None else list(widen_interval(value, interval, _bonferroni_factor(len(ratios))))
    return {"value": value, "interval": ends, "note": ""}, f"The lowest is that of class {name!r}"


def null_of_worst_class(tables: Sequence[Sequence[JSON]], rows: int, *, logarithmic: bool = False) -> Null | None:
    """Predict the lowest ratio over classes for real rows.

    Args:
        tables: of each class the outputs of the reference samples, as ratios to their mean.
        rows: size of a reference sample, over all classes.
        logarithmic: as in `null_from_draws`.

    Returns:
        Where every class has several draws, the range of the lowest ratio of a further one. Else from the lowest
        class's widened range to 1; a class of a single draw has that draw's interval.
    """
    if not tables:
        return None
    draws = min(len(each) for each in tables)
    if draws > 1 and all(output["value"] is not None for each in tables for output in each[:draws]):
        # Each draw is divided by the mean of the others, as samples are by the mean of all.
        table = np.array([[output["value"] for output in each[:draws]] for each in tables])
        others = (table.sum(axis=1, keepdims=True) - table) / (draws - 1)
        worst = (table / np.maximum(others, 1e-12)).min(axis=0)
        outputs = [{"value": float(each), "interval": None} for each in worst]
        return null_from_draws(outputs, rows, _UNCORRECTED, logarithmic=logarithmic)
    factor = _bonferroni_factor(len(tables))
    known = [
        null for each in tables if (null := null_from_draws(each, 1, _UNCORRECTED, logarithmic=logarithmic)) is not None
    ]
    low = min((widen_interval(each.mean, each.range, factor)[0] for each in known), default=1.0)
    return Null(mean=1.0, range=(min(low, 1.0), 1.0), draws=0, rows=rows)


def worst_class_metric(result: PerClassResult, evidence: Evidence) -> Metric:
    """Make a metric of the worst class."""
    metric, null = result.metric, result.null
    output, note = worst_class(result.ratios)
    scale = null.mean if metric.counts and null is not None else 1.0
    what = metric.name.removesuffix("_ratio").replace("_", " ")
    return build_metric(
        f"worst_class_{metric.name}",
        Panel.DIVERSITY,
        output,
        null=null,
        better="higher",
        tolerance=metric.tolerance * scale,
        decides=metric.decides,
        samples=evidence.compared,
        note=note,
        method=f"the lowest over classes of {what}, divided by that of as many training rows of the class; interval "
        "widened for the choice of the lowest (Bonferroni); real: the lowest over classes of reference samples",
    )


def _bonferroni_factor(classes: int) -> float:
    """Return by how much a 95 % interval grows so that those of all classes hold together."""
    return float(stats.norm.isf(TAIL / max(1, classes)) / stats.norm.isf(TAIL))
