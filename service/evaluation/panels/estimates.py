"""From statistics to JSON, and from JSON to metrics with what real rows score and a verdict.

A statistic that cannot be computed leaves no number and a note; a number that is not finite never leaves here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from service.evaluation.evidence import Evidence
from service.evaluation.panels.part import JSON, MetricPart
from service.evaluation.panels.reference_sample import DRAWS, ImageSet, as_drawn, compared, reference_sample
from service.evaluation.results import Better, ClassValue, Metric, Null, Panel, Verdict
from service.evaluation.statistics.intervals import Estimate, Interval, prediction_range
from service.evaluation.verdicts import compare_with_null

__all__ = ["CEILING", "attempt", "build_metric", "interval_of", "null_from_draws", "null_from_interval",
"on_samples_and_draws",
           "outputs_of_draws", "to_json", "widen"]  # fmt: skip

_UNSURE = "At this size it is not told apart from real rows, though the value alone is beyond the tolerance"

CEILING = 1e15
"""Ends of intervals beyond it are written as it: a size that nothing bounds from above."""


def to_json(estimate: Estimate, note: str = "") -> JSON:
    """An estimate as JSON; what is not finite becomes None, ends of an interval at most `CEILING`."""
    ends = estimate.interval
    whole = ends is not None and not any(map(math.isnan, ends))
    return {
        "value": estimate.value if math.isfinite(estimate.value) else None,
        "interval": [_bounded(end) for end in ends] if ends is not None and whole else None,
        "note": note,
    }


def attempt(compute: Callable[[], Estimate]) -> JSON:
    """Compute; a ValueError (too few rows, rows that are not finite) becomes the note of a missing number."""
    try:
        return to_json(compute())
    except ValueError as error:
        return {"value": None, "interval": None, "note": str(error)}


def on_samples_and_draws(
    name: str, panel: Panel, stage: str, measure: Callable[[ImageSet, Evidence], JSON]
) -> tuple[MetricPart, ...]:
    """The parts that measure the samples, then each draw of training rows in their place."""
    draws = tuple(
        MetricPart(name=f"{name}.real.{number}", panel=panel, stage=stage, compute=partial(_on_draw, measure, number))
        for number in range(DRAWS)
    )
    return (MetricPart(name=f"{name}.samples", panel=panel, stage=stage, compute=partial(_on_samples, measure)), *draws)


def outputs_of_draws(outputs: Mapping[str, JSON], name: str) -> list[Any]:
    """What the draws of `on_samples_and_draws` left, those that were taken."""
    return [found for number in range(DRAWS) if (found := outputs[f"{name}.real.{number}"]) is not None]


def null_from_draws(
    draws: Sequence[Mapping[str, JSON]], rows: int, of: int, *, logarithmic: bool = False
) -> Null | None:
    """What real rows score.

    Args:
        draws: one output a draw, "value" and "interval".
        rows: how many rows a draw has.
        of: how many they were drawn from.
        logarithmic: the values are ratios of counts, whose logarithms scatter evenly; then the mean is the geometric
        one.

    Returns:
        The mean of the draws and where further ones lie. Draws without replacement are more alike than independent ones
        by the share they take, so the range is widened by 1 / sqrt(1 - rows/of). Where a draw takes more than half, the
        value of one and its interval. None: no draw has a value, or the only one has no interval.
    """
    known = [each for each in draws if each["value"] is not None]
    if not known:
        return None
    values = [each["value"] for each in known]
    if len(values) < 2 or not as_drawn(rows, of) or (logarithmic and min(values) <= 0):
        return null_from_interval(known[0], rows)
    to, back = (math.log, math.exp) if logarithmic else (float, float)
    mean, (low, high) = prediction_range(np.array([to(value) for value in values]))
    wider = 1 / math.sqrt(1 - rows / of)
    ends = back(mean + (low - mean) * wider), back(mean + (high - mean) * wider)
    return Null(mean=back(mean), range=ends, draws=len(values), rows=rows)


def null_from_interval(output: Mapping[str, JSON], rows: int) -> Null | None:
    """What real rows score, from one value and its interval; None without either: a point is no range."""
    value, ends = output["value"], interval_of(output)
    return None if value is None or ends is None else Null(mean=value, range=ends, draws=0, rows=rows)


def interval_of(output: Mapping[str, JSON]) -> Interval | None:
    """The interval an output holds."""
    ends = output["interval"]
    return None if ends is None else (ends[0], ends[1])


def widen(value: float, interval: Interval, factor: float, most: float = CEILING) -> Interval:
    """An interval `factor` times as wide on either side of the value, within 0 and `most`."""
    low, high = interval
    return max(0.0, min(value, value + (low - value) * factor)), min(most, max(value, value + (high - value) * factor))


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
) -> Metric:
    """A metric with its verdict; notes of the output come before those of the metric."""
    value, interval = output["value"], interval_of(output)
    verdict = compare_with_null(value, interval, null, better, tolerance)
    unsure = _UNSURE if verdict is Verdict.LIKE_REAL and _is_beyond(value, null, better, tolerance) else ""
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
        note=". ".join(each for each in (output["note"], note, unsure) if each),
        samples=samples,
        classes=classes,
    )


def _is_beyond(value: float | None, null: Null | None, better: Better, tolerance: float) -> bool:
    """Whether the value alone would be worse than near real."""
    return compare_with_null(value, None, None if null is None else replace(null, range=(null.mean, null.mean)), better,
                       tolerance) is Verdict.WORSE  # fmt: skip


def _on_samples(measure: Callable[[ImageSet, Evidence], JSON], evidence: Evidence) -> JSON:
    return measure(compared(evidence), evidence)


def _on_draw(measure: Callable[[ImageSet, Evidence], JSON], number: int, evidence: Evidence) -> JSON:
    standing = reference_sample(evidence, number)
    return None if standing is None else measure(standing, evidence)


def _bounded(end: float) -> float:
    return max(-CEILING, min(CEILING, end))
