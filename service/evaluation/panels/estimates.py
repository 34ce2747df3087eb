"""Estimates as JSON, null distributions, and metrics made of both.

The output of a statistic is stored as {"value", "interval", "note"}. A statistic that cannot be computed has no value
and a note that says why; numbers that are not finite are never stored. The null distribution of a metric is what real
rows score in the place of samples: a range predicted from several reference samples (`null_from_draws`), or one
interval (`null_from_interval`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from service.evaluation.panels.parts import JSON, are_draws_distinct
from service.evaluation.results import Better, ClassValue, Metric, Null, Panel, Verdict
from service.evaluation.statistics.intervals import Estimate, Interval, prediction_range
from service.evaluation.verdicts import compare_with_null

__all__ = [
    "build_metric",
    "estimate_or_note",
    "estimate_to_json",
    "interval_of",
    "missing",
    "not_measurable",
    "null_from_draws",
    "null_from_interval",
    "ratio_of_estimates",
    "relative_to_reference",
    "scale_estimate",
    "widen_interval",
]

_LARGEST_END = 1e15  # written for an interval without an upper bound
_UNCERTAIN = "At this size the difference from real rows is not significant, though the value exceeds the tolerance"


def estimate_to_json(estimate: Estimate, note: str = "") -> JSON:
    """Convert an estimate; a value that is not finite becomes None, an infinite end of an interval 1e15."""
    ends = estimate.interval
    return {
        "value": estimate.value if math.isfinite(estimate.value) else None,
        "interval": None
        if ends is None or any(map(math.isnan, ends))
        else [max(-_LARGEST_END, min(_LARGEST_END, end)) for end in ends],
        "note": note,
    }


def missing(note: str) -> JSON:
    """Return the output of a statistic that could not be computed, with the reason."""
    return {"value": None, "interval": None, "note": note}


def not_measurable(note: str) -> JSON:
    """Return the output of a statistic that must not be computed, because the rows to compare with are unfit."""
    return {**missing(note), "measurable": False}


def estimate_or_note(compute: Callable[[], Estimate]) -> JSON:
    """Compute an estimate; a ValueError (too few rows, rows that are not finite) becomes the note of a missing one."""
    try:
        return estimate_to_json(compute())
    except ValueError as error:
        return missing(str(error))


def interval_of(output: Mapping[str, JSON]) -> Interval | None:
    """Return the interval of an output."""
    ends = output["interval"]
    return None if ends is None else (ends[0], ends[1])


def widen_interval(value: float, interval: Interval, factor: float) -> Interval:
    """Multiply the width of an interval on either side of the value, within 0 and 1e15."""
    low, high = interval
    return (
        max(0.0, min(value, value + (low - value) * factor)),
        min(_LARGEST_END, max(value, value + (high - value) * factor)),
    )


def scale_estimate(output: Mapping[str, JSON], unit: float) -> JSON:
    """Divide an output by a unit."""
    value, ends = output["value"], output["interval"]
    return {
        "value": None if value is None else value / unit,
        "interval": None if ends is None else [end / unit for end in ends],
        "note": output["note"],
    }


def ratio_of_estimates(above: Mapping[str, JSON], below: Mapping[str, JSON]) -> JSON:
    """Divide one output by another; the relative half widths of their intervals are added in squares.

    That treats them as independent. Both are of one set compared with the same real rows, and positively correlated if
    at all, so the interval is rather too wide.
    """
    if above["value"] is None or not below["value"]:
        return missing(above["note"] or below["note"] or "the denominator is 0")
    value = above["value"] / below["value"]
    first, second = interval_of(above), interval_of(below)
    if first is None or second is None:
        return {"value": value, "interval": None, "note": ""}
    down = math.hypot(
        (above["value"] - first[0]) / below["value"], value * (second[1] - below["value"]) / below["value"]
    )
    up = math.hypot((first[1] - above["value"]) / below["value"], value * (below["value"] - second[0]) / below["value"])
    return {"value": value, "interval": [max(0.0, value - down), value + up], "note": ""}


def relative_to_reference(
    sample: Mapping[str, JSON], draws: Sequence[Mapping[str, JSON]], rows: int, of: int
) -> tuple[JSON, Null | None]:
    """Divide an output, and its null distribution, by the mean of the reference samples.

    Args:
        sample: output of the samples.
        draws: outputs of the reference samples.
        rows: size of a reference sample.
        of: how many rows they were drawn from.
    """
    values = [each["value"] for each in draws if each["value"] is not None]
    unit = float(np.mean(values)) if values else 0.0
    if unit <= 0:
        return missing(sample["note"] or "real rows score 0, or nothing could be computed of them"), None
    return scale_estimate(sample, unit), null_from_draws([scale_estimate(each, unit) for each in draws], rows, of)


def null_from_draws(
    draws: Sequence[Mapping[str, JSON]], rows: int, of: int, *, logarithmic: bool = False
) -> Null | None:
    """Predict where the value of a further reference sample lies.

    Args:
        draws: outputs of the reference samples.
        rows: size of a reference sample.
        of: how many rows they were drawn from.
        logarithmic: the values are ratios of counts, whose logarithms scatter evenly; then the mean is the geometric
            one.

    Returns:
        The mean of the draws and the 95 % prediction range. Draws without replacement are more similar than independent
        ones by the share they take, so the range is widened by 1 / sqrt(1 − rows/of). Where a draw takes more than
        half, the value of one and its interval. None: no draw has a value, or the only one has no interval.
    """
    known = [each for each in draws if each["value"] is not None]
    values = [each["value"] for each in known]
    if not known:
        return None
    if len(values) < 2 or not are_draws_distinct(rows, of) or (logarithmic and min(values) <= 0):
        return null_from_interval(known[0], rows)
    to, back = (math.log, math.exp) if logarithmic else (float, float)
    mean, (low, high) = prediction_range(np.array([to(value) for value in values]))
    factor = 1 / math.sqrt(1 - rows / of)
    ends = back(mean + (low - mean) * factor), back(mean + (high - mean) * factor)
    return Null(mean=back(mean), range=ends, draws=len(values), rows=rows)


def null_from_interval(output: Mapping[str, JSON], rows: int) -> Null | None:
    """Take one value of real rows and its interval as null distribution; None without either: a point is no range."""
    value, ends = output["value"], interval_of(output)
    return None if value is None or ends is None else Null(mean=value, range=ends, draws=0, rows=rows)


def build_metric(
    name: str,
    panel: Panel,
    output: Mapping[str, JSON],
    *,
    null: Null | None,
    better: Better,
    method: str,
    samples: int,
    tolerance: float = 0.0,
    decides: bool = False,
    note: str = "",
    classes: tuple[ClassValue, ...] = (),
    limit: float | None = None,
) -> Metric:
    """Make a metric of an output and its null distribution, with its verdict; the output's note comes first.

    With a limit, the verdict compares with that number, whatever real rows score.
    """
    value, interval = output["value"], interval_of(output)
    compared = null if limit is None else Null(mean=limit, range=(limit, limit), draws=0, rows=0)
    verdict = compare_with_null(value, interval, compared, better, tolerance)
    if not output.get("measurable", True):
        verdict, null, note = Verdict.NOT_MEASURABLE, None, ""
    point_null = None if compared is None else replace(compared, range=(compared.mean, compared.mean))
    alone = compare_with_null(value, None, point_null, better, tolerance)
    uncertain = _UNCERTAIN if verdict is Verdict.LIKE_REAL and alone is Verdict.WORSE else ""
    return Metric(
        name=name,
        panel=panel,
        value=value,
        interval=interval,
        null=null,
        verdict=verdict,
        decides=decides,
        better=better,
        tolerance=tolerance,
        method=method,
        note=". ".join(each for each in (output["note"], note, uncertain) if each),
        samples=samples,
        classes=classes,
    )
