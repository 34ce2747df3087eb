"""Differences between two results that should be alike, in numbers and in words."""

from __future__ import annotations

import numpy as np

from handlers.checks.subject import Subject
from handlers.execution.pixels import Float32s

__all__ = ["apart", "told_apart"]


def apart(first: Float32s, second: Float32s) -> float:
    """The largest difference; a value that is not finite in one of both alone counts as infinitely far."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(first - second)
    differences[(first == second) | (np.isnan(first) & np.isnan(second))] = 0
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))


def told_apart(subject: Subject, difference: float) -> str:
    """Say a difference in levels for pictures, and as it is for other results."""
    if not subject.samples:
        return f"{difference:.3g}"
    return f"{subject.levels(difference):.3g} levels of 255"
