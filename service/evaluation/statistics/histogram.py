"""Two histograms over the same classes: how far apart they are, and whether chance explains it.

Sources: Sokal and Rohlf, "Biometry", chapter 17 (the G-test of independence); the interval of the total variation is
the delta method's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri, xlogy

from service.evaluation.statistics.intervals import Estimate

__all__ = ["HistogramTest", "compare_histograms"]

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class HistogramTest:
    """How two histograms compare.

    Attributes:
        total_variation: half the sum of absolute differences between shares, in [0, 1].
        g: the log-likelihood ratio statistic.
        p: how often histograms of the same shares differ by as much.
    """

    total_variation: Estimate
    g: float
    p: float


def compare_histograms(counts_a: NDArray[Any], counts_b: NDArray[Any]) -> HistogramTest:
    """Test two histograms for one distribution.

    Args:
        counts_a: (C,) whole numbers not below 0, with at least one count.
        counts_b: (C,) of the other set. Classes that are empty in both are left out.

    Raises:
        ValueError: another shape, negative or broken counts, or a set of nothing.
    """
    a, b = np.asarray(counts_a, dtype=np.float64), np.asarray(counts_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"histograms have one axis and the same classes, not {a.shape} and {b.shape}")
    counts = np.stack([a, b])
    if not ((counts >= 0) & (counts == np.floor(counts)) & np.isfinite(counts)).all() or not counts.sum(axis=1).all():
        raise ValueError("counts are whole numbers, not negative, and not all zero")
    counts = counts[:, counts.any(axis=0)]
    # E = row total · column total / all; G = 2 Σ O ln(O / E).
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    g = max(0.0, 2 * float(np.sum(xlogy(counts, counts / expected))))
    freedom = counts.shape[1] - 1
    return HistogramTest(_total_variation(counts), g, float(chdtrc(freedom, g)) if freedom else 1.0)


def _total_variation(counts: Float64s) -> Estimate:
    """Half of Σ|p − q|; both histograms are taken as drawn.

    The variance is that of Σ s (p − q)/2 with the signs s as they came out. Where p and q are near, signs go with the
    chance that made them, and the interval is wider than it need be. Classes with p = q count without a sign, so that
    equal histograms do not claim to be equal for sure.
    """
    totals = counts.sum(axis=1)
    shares = counts / totals[:, None]
    difference = shares[0] - shares[1]
    value = float(np.abs(difference).sum() / 2)
    leaning = shares @ np.sign(difference)
    variance = float(np.sum((1 - leaning**2) / totals) / 4)
    half = float(ndtri(0.975)) * math.sqrt(max(0.0, variance))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))
