"""The share of real rows that samples reach, and how far it strays from one draw of samples to another.

Which samples reach which real row enters, as sums over samples that merge; a share with its interval leaves. One sample
reaches several real rows, so these do not vary on their own: real rows that exactly the same samples reach come and go
together, and are found by a sum of the samples' keys.

Sources: Last and Penrose, "Lectures on the Poisson process", 2017, theorem 18.6; Efron and Thisted, Biometrika 63, 1976
(the smoothing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from service.evaluation.statistics.estimate import Estimate, Interval

__all__ = ["Reach", "keys_of"]

_SMOOTHED = np.array([31, 26, 16, 6, 1]) / 32  # P(Binomial(5, 1/2) >= 1 ... 5)
_KEY = 0x9E3779B97F4A7C15

Int64s = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """How many samples reach each real row, and which ones, as far as it matters. Mergeable.

    Attributes:
        counts: (m,) int64.
        keys: (m,) uint64, the sum of keys of those samples: equal for equal sets of samples.
    """

    counts: Int64s
    keys: NDArray[np.uint64]

    def merge(self, other: Reach) -> Reach:
        """Of the samples of both."""
        return Reach(counts=self.counts + other.counts, keys=self.keys + other.keys)

    def share(self, samples: int, dependence: float = 1.0) -> Estimate:
        """The share of real rows that any sample reaches.

        Its variance over draws of samples is that of a count of points no ball holds. By the chaos expansion of a
        Poisson process it is the sum, over sets T of samples, of (-1)^(|T| + 1) c(T)², c(T) being the number of real
        rows that exactly the samples T reach; alternating signs make it as noisy as a Good-Toulmin estimate of unseen
        species, so it is smoothed as that is, by the tails of a binomial distribution. It is never taken for less than
        that of independent real rows, times the dependence.

        Args:
            samples: how many there were.
            dependence: how many real rows at least vary as one.

        Sources: Last and Penrose, "Lectures on the Poisson process", 2017, theorem 18.6; Efron and Thisted, Biometrika
        63, 1976 (the smoothing).
        """
        value = float(np.count_nonzero(self.counts)) / len(self.counts)
        return Estimate(value, _score_interval(value, self._independent_rows(value, samples, dependence)))

    def _independent_rows(self, value: float, samples: int, dependence: float) -> float:
        """Of how many independent rows a share would vary as much."""
        alone = value * (1 - value) * dependence / len(self.counts)
        if alone == 0:
            return len(self.counts) / dependence
        total = 0.0
        for size, weight in enumerate(_SMOOTHED, start=1):
            _, together = np.unique(self.keys[self.counts == size], return_counts=True)
            total += (-1) ** (size + 1) * float(weight) * float(np.square(together, dtype=np.float64).sum())
        total -= float(np.count_nonzero(self.counts == 1)) ** 2 / samples  # samples are a fixed number, not Poisson
        return value * (1 - value) / max(total / len(self.counts) ** 2, alone)


def keys_of(numbers: Int64s) -> NDArray[np.uint64]:
    """A word for each number, so that sums of few of them are hardly ever equal (SplitMix64)."""
    word = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_KEY)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ (word >> np.uint64(31)))


def _score_interval(share: float, of: float) -> Interval:
    """Wilson's interval for a share of so many independent rows, whole or not."""
    z = float(ndtri(0.975))
    centre = (share * of + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(share * (1 - share) * of + z * z / 4)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if share == 0 else low, 1.0 if share == 1 else high)
