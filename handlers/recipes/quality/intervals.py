"""95 % intervals of what a card says: of a proportion, and of the smallest of several estimates.

The smallest of several estimates lies low, and the class that came out smallest was picked for it: an interval of that
class alone misses the truth one time in four where ten classes are equally rare. So every class has its own two bounds,
and the smallest of each are taken. The lower one needs no correction: to lie above the truth it must do so in the class
that is truly smallest. The upper one lies below the truth as soon as any class's does, so each is given a Kth of the
tail. Nothing is assumed of how the classes depend on each other.

Sources: Wilson, "Probable inference, the law of succession, and statistical inference", 1927; Efron 1979 (bootstrap);
Berger, "Multiparameter hypothesis testing and acceptance sampling", 1982 (intersection-union: the lower bound).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from torch import Tensor

__all__ = ["smallest_quantile_interval", "smallest_share_interval", "wilson_interval"]

_TAIL = 0.025


def wilson_interval(hits: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    Args:
        hits: 0 to trials; a mean over runs on the same trials need not be whole.
        trials: 1 or more.
    """
    return _wilson_bounds(hits, trials, _TAIL)


def smallest_share_interval(counts: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the smallest probability of a multinomial.

    Args:
        counts: of each class; their sum is the number of trials, 1 or more.
    """
    trials = sum(counts)
    low = min(_wilson_bounds(count, trials, _TAIL)[0] for count in counts)
    return low, min(_wilson_bounds(count, trials, _TAIL / len(counts))[1] for count in counts)


def smallest_quantile_interval(resampled: Tensor) -> tuple[float, float]:
    """95 % interval of the smallest of several quantities, from bootstrap percentiles of each.

    Args:
        resampled: (K, R), R estimates of each of K quantities; R of 100·K or more gives the upper tail its few.
    """
    low = resampled.quantile(_TAIL, dim=1).min()
    return float(low), float(resampled.quantile(1 - _TAIL / len(resampled), dim=1).min())


def _wilson_bounds(hits: float, trials: int, tail: float) -> tuple[float, float]:
    """Give bounds, each missed with probability tail.

    Source: Wilson 1927, equation 2.
    """
    share, z = hits / trials, NormalDist().inv_cdf(1 - tail)
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
