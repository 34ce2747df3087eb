"""The worst class: the lowest of many numbers, with an interval that has been told that it is the lowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy import stats

from service.evaluation.panels.measure import widen
from service.evaluation.panels.part import JSON
from service.evaluation.statistics.estimate import Interval

__all__ = ["lowest", "widening"]


def widening(classes: int) -> float:
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
    ends = None if interval is None else list(widen(value, interval, widening(len(ratios))))
    return {"value": value, "interval": ends, "note": ""}, f"The lowest is of class {name!r}"
