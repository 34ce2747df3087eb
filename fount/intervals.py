"""Wilson's score interval of a proportion, used for measured qualities of models and for evaluation reports."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["wilson_interval"]


def wilson_interval(hits: float, trials: float, *, tail: float = 0.025) -> tuple[float, float]:
    """Compute Wilson's score interval of a proportion; its coverage is right on average, not for every proportion.

    Args:
        hits: 0 to trials; a mean over several runs, or an effective count, need not be whole.
        trials: above 0.
        tail: probability with which each bound is missed; 0.025 gives the 95 % interval.

    Returns:
        Lower and upper bound within [0, 1]; exactly 0 for no hits and exactly 1 for all hits.

    Raises:
        ValueError: `trials` is not positive, or `hits` is not within it.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if not 0 <= hits <= trials or trials <= 0:
        raise ValueError(f"{hits} of {trials} is not a proportion: hits are 0 to trials, and trials are above 0.")
    z = NormalDist().inv_cdf(1 - tail)
    centre = (hits + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(hits * (trials - hits) / trials + z * z / 4)
    return (0.0 if hits == 0 else max(0.0, centre - half), 1.0 if hits == trials else min(1.0, centre + half))
