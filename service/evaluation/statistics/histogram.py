"""Compare two histograms over the same classes: total variation distance, and a G-test of equal shares.

Sources: Sokal and Rohlf, "Biometry", chapter 17 (the G-test of independence); the interval of the total variation is
that of the delta method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, xlogy

from service.evaluation.statistics.intervals import Z_95, Estimate
from service.evaluation.statistics.rows import Float64s

__all__ = ["HistogramTest", "compare_histograms"]


@dataclass(frozen=True)
class HistogramTest:
    """The comparison of two histograms.

    Attributes:
        total_variation: half the sum of absolute differences between shares, in [0, 1].
        g: the log-likelihood ratio statistic.
        p: the probability that histograms of equal shares differ by as much.
    """

    total_variation: Estimate
    g: float
    p: float


def compare_histograms(counts_a: NDArray[Any], counts_b: NDArray[Any]) -> HistogramTest:
    """Test whether two histograms have the same distribution.

    Args:
        counts_a: (C,) whole numbers not below 0, with at least one count.
        counts_b: (C,) of the other set. Classes that are empty in both are left out.
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
    """Estimate half of Σ|p − q| from counts (2, C), both of them random.

    The variance is that of Σ s (p − q)/2 with the observed signs s. Where p and q are close, chance decides the signs,
    and the interval is wider than needed. Classes with p = q have no sign, so that equal histograms do not get an
    interval of no width.
    """
    totals = counts.sum(axis=1)
    shares = counts / totals[:, None]
    difference = shares[0] - shares[1]
    value = float(np.abs(difference).sum() / 2)
    signed = shares @ np.sign(difference)
    variance = float(np.sum((1 - signed**2) / totals) / 4)
    half = Z_95 * math.sqrt(max(0.0, variance))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))
