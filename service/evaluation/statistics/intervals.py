"""95 % intervals: exact ones of shares, counts and rates, and the delete-block jackknife for everything else.

Statistics of moments, kernels and probabilities (FID, KID, Inception score, Vendi score, sliced Wasserstein distance)
get their interval from the jackknife: the rows are divided into blocks, and the statistic is computed again without
each of them. The interval is one for the estimator's expectation **at this number of rows**, so it is to be compared
with real rows of the same number. Nothing is resampled with replacement: repeated rows look like collapse to a
statistic of moments, and bootstrap intervals of FID do not even contain their own estimate.

Where a statistic is flat in its moments (FID, KID and sliced distances of samples that are as good as real ones), the
jackknife interval is wider than needed, by up to the square root of two; on average it is never too narrow (Efron and
Stein, "The jackknife estimate of variance", 1981).

Wilson's interval of a share is `fount.intervals.wilson_interval`. Sources: Clopper and Pearson 1934; Garwood 1936
(Poisson); Przyborowski and Wilenski 1940 (ratio of rates); Welch 1947 (difference of means); Busing, Meijer, van der
Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 9, 1999.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, ndtri, stdtrit

from service.evaluation.statistics.rows import Int64s

__all__ = [
    "BLOCKS",
    "TAIL",
    "Z_95",
    "Estimate",
    "Interval",
    "Mergeable",
    "block_rows",
    "clip",
    "clopper_pearson_interval",
    "difference_of_means",
    "estimate_from_blocks",
    "jackknife_interval",
    "poisson_interval",
    "prediction_range",
    "rate_ratio_interval",
]

BLOCKS = 20
"""Number of jackknife blocks."""

TAIL = 0.025
"""Probability outside a 95 % interval, on either side."""

Z_95 = float(ndtri(1 - TAIL))
"""Half the width of a 95 % interval of a normal variable, in standard deviations."""

Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate, and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None = None


class Mergeable(Protocol):
    """The sufficient statistics of some rows."""

    @property
    def count(self) -> int:
        """How many rows."""
        ...

    def merge(self, other: Self, /) -> Self:
        """Return the statistics of the rows of both."""
        ...


_State = TypeVar("_State", bound=Mergeable)


# --- Shares, counts, rates --------------------------------------------------------------------------------------------


def clopper_pearson_interval(hits: float, of: float) -> Interval:
    """Compute the interval of a share by exact binomial tails; it never covers less than 95 %.

    Args:
        hits: 0 to `of`; need not be whole.
        of: above 0.
    """
    if not 0 <= hits <= of or of <= 0:
        raise ValueError(f"{hits} of {of} is not a share")
    low = 0.0 if hits == 0 else float(betaincinv(hits, of - hits + 1, TAIL))
    high = 1.0 if hits == of else float(betaincinv(hits + 1, of - hits, 1 - TAIL))
    return low, high


def poisson_interval(count: float) -> Interval:
    """Compute the exact interval of the mean of a Poisson count, at least 0; continued to counts that are not whole."""
    if count < 0:
        raise ValueError(f"a count is not negative, got {count}")
    return float(gammaincinv(count, TAIL)) if count else 0.0, float(gammaincinv(count + 1, 1 - TAIL))


def difference_of_means(above: NDArray[np.floating], below: NDArray[np.floating]) -> Estimate:
    """Estimate the mean of one sample less that of another, with Welch's interval.

    Raises:
        ValueError: fewer than two values on either side.
    """
    if min(len(above), len(below)) < 2:
        raise ValueError(f"{len(above)} and {len(below)} values are too few: two on either side are needed")
    value = float(above.mean() - below.mean())
    one, other = above.var(ddof=1) / len(above), below.var(ddof=1) / len(below)
    if not one + other:
        return Estimate(value, (value, value))
    freedom = (one + other) ** 2 / (one**2 / (len(above) - 1) + other**2 / (len(below) - 1))
    half = float(stdtrit(freedom, 1 - TAIL)) * math.sqrt(one + other)
    return Estimate(value, (value - half, value + half))


def rate_ratio_interval(count_a: float, exposure_a: float, count_b: float, exposure_b: float) -> Interval:
    """Compute the exact interval of rate a over rate b, of two Poisson counts, each in an exposure of its own, above 0.

    Given their sum, count a is binomial; the share's Clopper-Pearson ends are converted to ratios. The ends are 0 where
    `count_a` is 0 and infinite where `count_b` is. A count whose variance is c times its mean enters divided by c, as
    does its exposure.
    """
    if min(count_a, count_b) < 0 or not (exposure_a > 0 and exposure_b > 0):
        raise ValueError("counts are not negative and exposures are positive")
    if count_a + count_b == 0:
        return 0.0, math.inf
    shares = clopper_pearson_interval(count_a, count_a + count_b)
    low, high = (math.inf if share == 1 else share / (1 - share) * (exposure_b / exposure_a) for share in shares)
    return low, high


# --- Values of repeated draws -----------------------------------------------------------------------------------------


def prediction_range(values: NDArray[np.floating]) -> tuple[float, Interval]:
    """Predict where a further value lies, given the values of some draws.

    Args:
        values: (R,) of independent draws, close to normal; R at least 2.

    Returns:
        Their mean, and the range that holds 95 % of single further values (t, with R - 1 degrees of freedom).
    """
    drawn = np.asarray(values, dtype=np.float64)
    if drawn.size < 2 or not np.isfinite(drawn).all():
        raise ValueError("at least two values are needed, all of them finite")
    mean, spread = float(drawn.mean()), float(drawn.std(ddof=1))
    half = float(stdtrit(drawn.size - 1, 1 - TAIL)) * spread * math.sqrt(1 + 1 / drawn.size)
    return mean, (mean - half, mean + half)


# --- Jackknife over blocks of rows ------------------------------------------------------------------------------------


def block_rows(n: int, blocks: int = BLOCKS) -> list[Int64s]:
    """Divide n rows into jackknife blocks of nearly equal size, always in the same way.

    Rows are shuffled, since rows that are ordered by class would make blocks differ by more than chance.

    Returns:
        The row numbers of min(n, blocks) blocks, int64, none of them empty.
    """
    order = np.random.Generator(np.random.Philox(key=n)).permutation(n).astype(np.int64)
    blocks = min(n, blocks)
    return np.split(order, np.arange(1, blocks, dtype=np.int64) * n // blocks) if n else []


def jackknife_interval(
    value: float, left_out: NDArray[np.floating], sizes: NDArray[np.integer] | None = None
) -> Interval:
    """Compute the interval of a statistic from its values without each block (delete-m_j jackknife).

    Args:
        value: from all rows.
        left_out: (g,) the statistic without block j; g at least 2.
        sizes: (g,) rows of each block; None: equal.

    Returns:
        value ± t (g - 1 degrees of freedom) standard errors; not corrected for bias, which is the same for real rows.

    Source: Busing et al. 1999, equation 8.
    """
    without = np.asarray(left_out, dtype=np.float64)
    g = without.size
    if g < 2 or not math.isfinite(value) or not np.isfinite(without).all():
        raise ValueError("at least two blocks are needed, and values that are finite")
    shares = np.full(g, 1 / g) if sizes is None else np.asarray(sizes, dtype=np.float64) / np.sum(sizes)
    pseudo = value / shares - (1 / shares - 1) * without
    centre = g * value - np.sum((1 - shares) * without)
    variance = float(np.mean((pseudo - centre) ** 2 / (1 / shares - 1)))
    half = float(stdtrit(g - 1, 1 - TAIL)) * math.sqrt(variance)
    return value - half, value + half


def estimate_from_blocks(states: Sequence[_State], statistic: Callable[[_State], float], least: int) -> Estimate:
    """Compute a statistic of all blocks' rows, with its jackknife interval.

    Args:
        states: of each block, none of them empty.
        statistic: of the rows of a state.
        least: rows the statistic needs; where leaving out a block leaves fewer, there is no interval.
    """
    after = [states[-1]]  # after[j]: the last j + 1 blocks
    for state in reversed(states[:-1]):
        after.append(state.merge(after[-1]))
    value = statistic(after[-1])
    sizes = np.array([state.count for state in states])
    if len(states) < 2 or sizes.sum() - sizes.max() < least:
        return Estimate(value)
    left_out, before = [statistic(after[-2])], states[0]
    for place in range(1, len(states) - 1):
        left_out.append(statistic(before.merge(after[-place - 2])))
        before = before.merge(states[place])
    left_out.append(statistic(before))
    return Estimate(value, jackknife_interval(value, np.array(left_out), sizes))


def clip(estimate: Estimate, low: float, high: float = math.inf) -> Estimate:
    """Clip an estimate's interval to the range of its statistic."""
    if estimate.interval is None:
        return estimate
    return Estimate(estimate.value, (max(float(low), estimate.interval[0]), min(float(high), estimate.interval[1])))
