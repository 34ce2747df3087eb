"""Ratios of numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from service.evaluation.panels.measure import interval_of, null_from_draws
from service.evaluation.panels.part import JSON
from service.evaluation.results import Null

__all__ = ["over", "over_mean", "scaled"]


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


def over_mean(
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
