"""95 % intervals: of shares, counts, rates, and by leaving out blocks of rows.

Statistics of moments, kernels and probabilities get theirs from the delete-block jackknife: the rows are cut into
blocks, and the statistic is taken again without each of them. It speaks of the estimator's expectation **at this number
of rows**, so it is to be compared with real rows of the same number. It never resamples with replacement: repeated rows
look like collapse to a statistic of moments, and bootstrap intervals of FID do not even hold their own estimate.

Where a statistic is flat in its moments (FID, KID and sliced distances of samples that are as good as real ones), the
jackknife is wider than it need be, by up to the square root of two; on average it is never too narrow (Efron and
Stein, "The jackknife estimate of variance", 1981).

Sources: Clopper and Pearson 1934; Garwood 1936 (Poisson); Przyborowski and Wilenski 1940 (ratio of rates);
Busing, Meijer, van der Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 9, 1999.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, stdtrit

__all__ = [
    "BLOCKS",
    "Estimate",
    "Interval",
    "Mergeable",
    "block_bounds",
    "block_rows",
    "clip",
    "clopper_pearson",
    "estimate_from_blocks",
    "jackknife",
    "poisson",
    "prediction_range",
    "rate_ratio",
]


BLOCKS = 20
"""How many blocks the jackknife leaves out in turn."""

_TAIL = 0.025


class Mergeable(Protocol):
    """What a statistic needs to know of some rows, and how it is put together from parts."""

    @property
    def count(self) -> int:
        """How many rows."""
        ...

    def merge(self, other: Self, /) -> Self:
        """Of the rows of both."""
        ...


_State = TypeVar("_State", bound=Mergeable)


# --- Shares, counts, rates --------------------------------------------------------------------------------------------


def clopper_pearson(hits: float, of: float) -> Interval:
    """A share's interval by exact binomial tails; never covers less than it says. Counts need not be whole.

    Raises:
        ValueError: `of` is not positive, or `hits` is not within it.
    """
    _check_share(hits, of)
    low = 0.0 if hits == 0 else float(betaincinv(hits, of - hits + 1, _TAIL))
    high = 1.0 if hits == of else float(betaincinv(hits + 1, of - hits, 1 - _TAIL))
    return low, high


def poisson(count: int) -> Interval:
    """The exact interval of a Poisson count's mean.

    Raises:
        ValueError: the count is negative.
    """
    if count < 0:
        raise ValueError(f"a count is not negative, got {count}")
    low = 0.0 if count == 0 else float(gammaincinv(count, _TAIL))
    return low, float(gammaincinv(count + 1, 1 - _TAIL))


def rate_ratio(count_a: float, exposure_a: float, count_b: float, exposure_b: float) -> Interval:
    """The exact interval of rate a over rate b, of two Poisson counts, each in an exposure of its own.

    Given their sum, count a is binomial; the share's Clopper-Pearson ends are turned into ratios. The ends are 0 where
    `count_a` is 0 and infinite where `count_b` is. A count whose variance is c times its mean enters divided by c, as
    does its exposure.

    Raises:
        ValueError: a count is negative, or an exposure is not positive.
    """
    if min(count_a, count_b) < 0 or not (exposure_a > 0 and exposure_b > 0):
        raise ValueError("counts are not negative and exposures are positive")
    if count_a + count_b == 0:
        return 0.0, math.inf
    shares = clopper_pearson(count_a, count_a + count_b)
    low, high = (math.inf if share == 1 else share / (1 - share) * (exposure_b / exposure_a) for share in shares)
    return low, high


def _check_share(hits: float, of: float) -> None:
    if not 0 <= hits <= of or of <= 0:
        raise ValueError(f"{hits} of {of} is not a share")


# --- Values of repeated draws -----------------------------------------------------------------------------------------


def prediction_range(values: NDArray[np.floating]) -> tuple[float, Interval]:
    """Where further values will lie, once some of them are known.

    Args:
        values: (R,) of independent draws, close to normal; R at least 2.

    Returns:
        Their mean, and the range that holds 95 % of single further values (t, with R - 1 degrees of freedom).

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    drawn = np.asarray(values, dtype=np.float64)
    if drawn.size < 2 or not np.isfinite(drawn).all():
        raise ValueError("at least two values are needed, all of them finite")
    mean, spread = float(drawn.mean()), float(drawn.std(ddof=1))
    half = float(stdtrit(drawn.size - 1, 1 - _TAIL)) * spread * math.sqrt(1 + 1 / drawn.size)
    return mean, (mean - half, mean + half)


# --- Leaving out blocks -----------------------------------------------------------------------------------------------


def block_bounds(n: int, blocks: int = BLOCKS) -> NDArray[np.int64]:
    """Where blocks of nearly equal size start and end: block j is rows bounds[j] to bounds[j + 1].

    Returns:
        (blocks + 1,) int64, from 0 to n; some blocks are empty where n is less than `blocks`.
    """
    return np.arange(blocks + 1, dtype=np.int64) * n // blocks


def block_rows(n: int, blocks: int = BLOCKS) -> list[NDArray[np.int64]]:
    """The rows of each block: n of them shuffled, always in the same way, and cut.

    Shuffled, since rows that are ordered by class would make blocks differ by more than chance.

    Returns:
        min(n, blocks) arrays of int64, none of them empty.
    """
    order = np.random.Generator(np.random.Philox(key=n)).permutation(n).astype(np.int64)
    return np.split(order, block_bounds(n, min(n, blocks))[1:-1]) if n else []


def jackknife(value: float, left_out: NDArray[np.floating], sizes: NDArray[np.integer] | None = None) -> Interval:
    """The interval around a statistic that was taken again without each block.

    Args:
        value: from all rows.
        left_out: (g,) the statistic without block j; g at least 2.
        sizes: (g,) rows of each block; None: equal.

    Returns:
        value ± t (g - 1 degrees of freedom) standard errors; not corrected for bias, which is the same for real rows.

    Raises:
        ValueError: fewer than two blocks, or a value that is not finite.

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
    half = float(stdtrit(g - 1, 1 - _TAIL)) * math.sqrt(variance)
    return value - half, value + half


def estimate_from_blocks(states: Sequence[_State], statistic: Callable[[_State], float], least: int) -> Estimate:
    """The statistic of all blocks' rows, with its jackknife interval.

    Args:
        states: one for each block, none of them empty.
        statistic: of the rows of a state.
        least: how many rows it takes; where leaving out a block leaves fewer, there is no interval.
    """
    behind = [states[-1]]  # behind[j]: the last j + 1 blocks
    for state in reversed(states[:-1]):
        behind.append(state.merge(behind[-1]))
    value = statistic(behind[-1])
    sizes = np.array([state.count for state in states])
    if len(states) < 2 or sizes.sum() - sizes.max() < least:
        return Estimate(value)
    left_out, before = [statistic(behind[-2])], states[0]
    for place in range(1, len(states) - 1):
        left_out.append(statistic(before.merge(behind[-place - 2])))
        before = before.merge(states[place])
    left_out.append(statistic(before))
    return Estimate(value, jackknife(value, np.array(left_out), sizes))


def clip(estimate: Estimate, low: float, high: float = math.inf) -> Estimate:
    """The estimate with its interval cut to where the statistic can lie at all."""
    if estimate.interval is None:
        return estimate
    return Estimate(estimate.value, (max(float(low), estimate.interval[0]), min(float(high), estimate.interval[1])))


# FOLDED FROM service.evaluation.statistics.intervals:
# A number with its interval: what every statistic gives.


Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate, and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None = None
