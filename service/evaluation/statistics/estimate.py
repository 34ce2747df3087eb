"""A number with its interval: what every statistic gives."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate", "Interval"]

Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate, and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None = None
