"""Precision, density, recall, coverage and realism from k-nearest-neighbour balls around samples and real rows.

Features of samples and of real rows enter, each as a `Manifold`: the union of balls around its rows, from a row to its
k-th nearest other row of the same set. `compare` examines every pair; comparisons of parts of the samples merge into
that of all of them. A `Comparison` gives

    precision   share of samples inside the ball of a real row
    density     balls of real rows that hold a sample, on average, over k
    recall      share of real rows inside the ball of a sample
    coverage    share of real rows whose ball holds a sample
    realism     of one sample: the largest radius / distance over real rows

None of the first four but density is 1 for a perfect generator; compare with real rows in the place of samples. The
intervals are over draws of samples, the real rows held fixed. Precision and density are means over independent samples.
Recall and coverage are shares of real rows that depend on each other, since one sample reaches several: see `Reach`.

Sources: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", NeurIPS 2019
(precision, recall, equation 2; realism, equation 3); Naeem et al., "Reliable fidelity and diversity metrics for
generative models", ICML 2020 (density, coverage, equations 3 and 5; the expected coverage, lemma 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.intervals import wilson_interval
from service.evaluation.statistics.distances import Tile, nearest_squares, prepare, tiles
from service.evaluation.statistics.intervals import Z_95, Estimate
from service.evaluation.statistics.rows import Bools, Features, Float64s, Int64s

__all__ = ["Comparison", "K", "Manifold", "Reach", "compare", "expected_coverage"]

K = 5
"""A ball reaches to the K-th nearest other row."""

_RECALL_DEPENDENCE = 2.0
_SMOOTHING = np.array([31, 26, 16, 6, 1]) / 32  # P(Binomial(5, 1/2) >= 1 ... 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifold:
    """Rows with the balls around them.

    Attributes:
        features: (n, d) float32 or float64.
        squared_radii: (n,) float64, to the k-th other row; 0 where k others are equal to it: such a ball holds nothing.
        k: to which other row the balls reach.
        numbers: (n,) int64, of the rows within the whole set.
    """

    features: Features
    squared_radii: Float64s
    k: int
    numbers: Int64s

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def of(cls, features: Features, k: int = K) -> Manifold:
        """Measure the balls of features (n, d), n at least k + 1."""
        if len(features) < k + 1:
            raise ValueError(f"balls to row {k} take at least {k + 1} rows, there are {len(features)}")
        radii = nearest_squares(features, features, k, exclude_self=True)[0][:, -1]
        return cls(features=features, squared_radii=radii, k=k, numbers=np.arange(len(features), dtype=np.int64))

    def part(self, first: int, last: int) -> Manifold:
        """Return rows first to last - 1, with the balls they have within the whole set."""
        part = slice(first, last)
        radii, numbers = self.squared_radii[part], self.numbers[part]
        return Manifold(features=self.features[part], squared_radii=radii, k=self.k, numbers=numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """How many samples reach each real row, and which ones, up to hash collisions; mergeable.

    Attributes:
        counts: (m,) int64.
        keys: (m,) uint64, the sum of the hashes of those samples: equal for equal sets of samples.
    """

    counts: Int64s
    keys: NDArray[np.uint64]

    def merge(self, other: Reach) -> Reach:
        """Return the reach of the samples of both into the same real rows."""
        return Reach(counts=self.counts + other.counts, keys=self.keys + other.keys)

    def share(self, samples: int, dependence: float = 1.0) -> Estimate:
        """Estimate the share of real rows that any sample reaches, with an interval over draws of samples.

        Its variance is that of a count of points that no ball holds. By the chaos expansion of a Poisson process it is
        the sum, over sets T of samples, of (−1)^(|T| + 1) c(T)², c(T) being the number of real rows that exactly the
        samples T reach; alternating signs make it as noisy as a Good-Toulmin estimate of unseen species, so it is
        smoothed as that is, by the tails of a binomial distribution. The variance is never taken as less than that of
        independent real rows, times the dependence. The interval is Wilson's for as many independent rows as have that
        variance.

        Args:
            samples: how many there were.
            dependence: how many real rows at least vary together.

        Sources: Last and Penrose, "Lectures on the Poisson process", 2017, theorem 18.6; Efron and Thisted, Biometrika
        63, 1976 (the smoothing).
        """
        value = float(np.count_nonzero(self.counts)) / len(self.counts)
        rows = self._independent_rows(value, samples, dependence)
        return Estimate(value, wilson_interval(value * rows, rows))

    def _independent_rows(self, value: float, samples: int, dependence: float) -> float:
        """Return the number of independent rows whose share would vary as much."""
        alone = value * (1 - value) * dependence / len(self.counts)
        if alone == 0:
            return len(self.counts) / dependence
        total = 0.0
        for size, weight in enumerate(_SMOOTHING, start=1):
            _, together = np.unique(self.keys[self.counts == size], return_counts=True)
            total += (-1) ** (size + 1) * float(weight) * float(np.square(together, dtype=np.float64).sum())
        total -= float(np.count_nonzero(self.counts == 1)) ** 2 / samples  # samples are a fixed number, not Poisson
        return value * (1 - value) / max(total / len(self.counts) ** 2, alone)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Samples compared with real rows; mergeable over parts of one set of samples.

    Attributes:
        k: of both manifolds.
        balls: (n,) int64, how many balls of real rows hold each sample.
        realism: (n,) float64, the largest radius / distance over the half of the real rows with the smaller balls;
            infinite for a sample equal to one of them.
        coverage_reach: of samples in the balls of real rows.
        recall_reach: of real rows in the balls of samples.
    """

    k: int
    balls: Int64s
    realism: Float64s
    coverage_reach: Reach
    recall_reach: Reach

    def merge(self, other: Comparison) -> Comparison:
        """Return the comparison of the samples of both, these first, with the same real rows."""
        return Comparison(
            k=self.k,
            balls=np.concatenate([self.balls, other.balls]),
            realism=np.concatenate([self.realism, other.realism]),
            coverage_reach=self.coverage_reach.merge(other.coverage_reach),
            recall_reach=self.recall_reach.merge(other.recall_reach),
        )

    @property
    def precision(self) -> Estimate:
        """The share of samples inside the ball of a real row; Wilson's interval."""
        hits = int(np.count_nonzero(self.balls))
        return Estimate(hits / len(self.balls), wilson_interval(hits, len(self.balls)))

    @property
    def density(self) -> Estimate:
        """Balls of real rows that hold a sample, on average, over k; the interval of a mean."""
        value = float(self.balls.mean()) / self.k
        if len(self.balls) < 2:
            return Estimate(value)
        half = Z_95 * float(self.balls.std(ddof=1)) / self.k / math.sqrt(len(self.balls))
        return Estimate(value, (max(0.0, value - half), value + half))

    @property
    def recall(self) -> Estimate:
        """The share of real rows inside the ball of a sample.

        Its interval is measured, not derived: balls of samples shrink as samples are added, which `Reach` does not
        model. In draws of Gaussians (half to twice as many samples as real rows) the variance was 0.7 to 1.9 times that
        of independent rows in 16 and 64 dimensions, up to 2.5 times in 2; a factor of 2 is used. It is too narrow where
        samples form few clusters of about k + 1 samples each: a ball may then reach the next cluster, or not.
        """
        return self.recall_reach.share(len(self.balls), _RECALL_DEPENDENCE)

    @property
    def coverage(self) -> Estimate:
        """The share of real rows whose ball holds a sample."""
        return self.coverage_reach.share(len(self.balls))

    @property
    def realism_median(self) -> Estimate:
        """The median of realism, with the interval of order statistics: ranks n/2 ± 1.96 √n/2 contain it."""
        ordered = np.sort(self.realism)
        n = len(ordered)
        half = 1.96 * math.sqrt(n) / 2
        ends = ordered[max(0, math.floor(n / 2 - half))], ordered[min(n - 1, math.ceil(n / 2 + half))]
        return Estimate(float(np.median(ordered)), (float(ends[0]), float(ends[1])))


def compare(samples: Manifold, real: Manifold) -> Comparison:
    """Compare every sample with every real row, a tile at a time; a point on a ball's edge is outside.

    Args:
        samples: all of them, or a part of their manifold.
        real: all real rows.

    Raises:
        ValueError: features of another width, another k, or real rows so similar that all their balls have radius 0.
    """
    if samples.k != real.k or samples.features.shape[1] != real.features.shape[1]:
        raise ValueError(
            f"samples (k = {samples.k}, {samples.features.shape[1]} features) and "
            f"real rows (k = {real.k}, {real.features.shape[1]} features) are not of one kind"
        )
    if not real.squared_radii.any():
        raise ValueError(f"each of {len(real)} real rows equals {real.k} others: all their balls have radius 0")
    order = np.argsort(real.squared_radii, kind="stable")  # the half with the smaller balls is then a slice
    rows = prepare(real.features[order])
    counts = _PairCounts(samples, real.squared_radii[order])
    for tile in tiles(prepare(samples.features, rows.centre), rows):
        counts.add(tile)
    return counts.result(real.k, order)


def expected_coverage(real: int, samples: int, k: int = K) -> float:
    """Compute the expected coverage of samples with the distribution of the real rows.

    Args:
        real: how many real rows; more than k.
        samples: how many samples.
        k: of the balls.

    Source: Naeem et al. 2020, lemma 2: 1 − ∏ over i = 1 ... k of (N − i) / (M + N − i).
    """
    return 1.0 - math.prod((real - i) / (samples + real - i) for i in range(1, k + 1))


class _PairCounts:
    """Counts over the tiles added so far; real rows in order of their radius."""

    def __init__(self, samples: Manifold, real_radii: Float64s) -> None:
        n, m = len(samples), len(real_radii)
        self._sample_radii, self._real_radii = samples.squared_radii, real_radii
        self._sample_keys = _hash_numbers(samples.numbers)
        self._balls = np.zeros(n, np.int64)
        self._coverage, self._recall = (
            Reach(counts=np.zeros(m, np.int64), keys=np.zeros(m, np.uint64)) for _ in range(2)
        )
        self._least_ratio = np.full(n, np.inf)  # of squared distance / squared radius
        self._small = _smaller_half(real_radii)

    def add(self, tile: Tile) -> None:
        queries = slice(tile.first_query, tile.first_query + tile.squares.shape[0])
        rows = slice(tile.first_row, tile.first_row + tile.squares.shape[1])
        inside = _within(tile, self._real_radii[rows][None, :])
        self._balls[queries] += np.count_nonzero(inside, axis=1)
        self._add_reach(self._coverage, inside, queries, rows)
        self._add_reach(self._recall, _within(tile, self._sample_radii[queries][:, None]), queries, rows)
        self._add_realism(tile, queries)

    def _add_reach(self, reach: Reach, reached: Bools, queries: slice, rows: slice) -> None:
        sample, row = np.divmod(np.flatnonzero(reached), reached.shape[1])
        reach.counts[rows] += np.bincount(row, minlength=reached.shape[1])
        np.add.at(reach.keys, row + rows.start, self._sample_keys[queries][sample])

    def _add_realism(self, tile: Tile, queries: slice) -> None:
        first, last = max(self._small.start - tile.first_row, 0), self._small.stop - tile.first_row
        squares = tile.squares[:, first : max(first, last)]
        if not squares.shape[1]:
            return
        radii = self._real_radii[tile.first_row + first : tile.first_row + first + squares.shape[1]]
        best = np.argmin(squares * (1.0 / radii), axis=1)
        ratios = tile.direct(np.arange(len(best)), best + first) / radii[best]
        self._least_ratio[queries] = np.minimum(self._least_ratio[queries], ratios)

    def result(self, k: int, order: Int64s) -> Comparison:
        back = np.argsort(order)
        coverage, recall = (
            Reach(counts=reach.counts[back], keys=reach.keys[back]) for reach in (self._coverage, self._recall)
        )
        with np.errstate(divide="ignore"):
            realism = 1.0 / np.sqrt(self._least_ratio)
        return Comparison(k=k, balls=self._balls, realism=realism, coverage_reach=coverage, recall_reach=recall)


def _within(tile: Tile, squared_radii: Float64s) -> Bools:
    """Return which pairs of a tile are nearer than the radii, (1, r) or (q, 1); close cases are computed directly."""
    excess = tile.squares - squared_radii
    within = excess < 0
    queries, rows = np.divmod(np.flatnonzero(np.abs(excess, out=excess) <= tile.slack), within.shape[1])
    if len(queries):
        limits = np.broadcast_to(squared_radii, within.shape)[queries, rows]
        within[queries, rows] = tile.direct(queries, rows) < limits
    return np.asarray(within)


def _smaller_half(ascending: Float64s) -> slice:
    """Return where the positive radii up to their median are."""
    first = int(np.searchsorted(ascending, 0.0, side="right"))
    return slice(first, int(np.searchsorted(ascending, np.median(ascending[first:]), side="right")))


def _hash_numbers(numbers: Int64s) -> NDArray[np.uint64]:
    """Hash numbers so that sums of few of the hashes are hardly ever equal (SplitMix64)."""
    word = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ (word >> np.uint64(31)))
