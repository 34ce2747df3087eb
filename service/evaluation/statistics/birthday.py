"""The birthday test, made automatic: how many different things a generator makes, told from how often two are alike.

Features enter, a number of things leaves. Among s draws from N equally likely things there are about s(s - 1) / 2N
pairs of equal ones: s need only be about the root of N. "Alike" is nearer than a threshold at which pairs of held-out
rows hardly ever are (`calibrate`), so the same count on real rows says what it should be.

What is estimated is N_eff = 1 / sum p², the Hill number of order 2. Counting stops at the row that brings enough pairs,
so that a collapsed generator is seen in few samples, and while pairs are few they are nearly independent. Where some
things are much likelier than others, pairs come in bunches that share a row: from how often two pairs do, the count's
variance is known, and the interval is widened by it.

Source: Arora, Risteski, Zhang, "Do GANs learn the distribution? Some theory and empirics", ICLR 2018, section 3; the
calibrated threshold, the stop and the interval are this project's own; the count's variance: Lee, "U-Statistics", 1990,
section 1.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from service.evaluation.statistics.distances import Rows, prepare, tiles
from service.evaluation.statistics.intervals import Estimate, Interval

__all__ = ["ENOUGH", "Collisions", "calibrate", "closest_pairs", "count_collisions", "effective_size"]

ENOUGH = 20
"""Collisions at which counting stops: N_eff is then known to within about 0.65 to 1.6 times."""

Features = NDArray[np.floating[Any]]
Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Collisions:
    """What was counted.

    Attributes:
        count: pairs that are alike.
        rows: how many rows were looked at, from the first.
        pairs_compared: how many pairs those rows make, of equal group where there are groups.
        dispersion: the count's variance over that of independent pairs, at least 1.
    """

    count: int
    rows: int
    pairs_compared: int
    dispersion: float = 1.0


def calibrate(features: Features, collisions: int = ENOUGH) -> float:
    """The distance at or below which that many pairs of held-out rows lie.

    Args:
        features: (m, d) of held-out rows, float32 or float64.
        collisions: how many pairs.

    Raises:
        ValueError: fewer pairs than that, or rows that are not finite; it says how many.
    """
    if len(features) * (len(features) - 1) // 2 < collisions:
        raise ValueError(f"{len(features)} rows make fewer than {collisions} pairs")
    return closest_pairs(features, collisions)[-1][2]


def count_collisions(
    features: Features, threshold: float, *, enough: int = ENOUGH, block: int = 256, groups: NDArray[Any] | None = None
) -> Collisions:
    """Count pairs at most the threshold apart, row after row, until there are enough.

    Args:
        features: (n, d) float32 or float64, in the order they were drawn.
        threshold: of `calibrate`.
        enough: stop at the row with which the count reaches it.
        block: how many rows are taken up at a time; it changes the speed alone.
        groups: (n,) of any kind that can be compared; only pairs of equal group count. None: all do.

    Raises:
        ValueError: fewer than two rows, or rows that are not finite; it says how many.
    """
    rows = _prepared(features)
    of = np.zeros(len(rows), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    found, count = [], 0
    for first in range(0, len(rows), block):
        found.append(_alike(rows, first, min(first + block, len(rows)), threshold, of))
        count += found[-1].shape[1]
        if count >= enough:
            break
    pairs = np.concatenate(found, axis=1)  # (2, pairs): the smaller row number, the larger
    seen = int(np.partition(pairs[1], enough - 1)[enough - 1]) + 1 if count >= enough else len(rows)
    return _summarise(pairs[:, pairs[1] < seen], of[:seen])


def effective_size(collisions: Collisions) -> Estimate:
    """N_eff = pairs / collisions, with the exact Poisson interval of the count, widened by its dispersion.

    Without a collision the value and the upper end are infinite, and the lower end is what can still be said.

    Raises:
        ValueError: no pair was compared.
    """
    if not collisions.pairs_compared:
        raise ValueError(f"{collisions.rows} rows made no pair to compare")
    pairs, independent = float(collisions.pairs_compared), collisions.count / collisions.dispersion
    low, high = (end * collisions.dispersion for end in _poisson(independent))
    value = pairs / collisions.count if collisions.count else math.inf
    return Estimate(value, (pairs / high, pairs / low if low else math.inf))


def closest_pairs(features: Features, most: int) -> list[tuple[int, int, float]]:
    """The pairs of rows that lie closest together.

    Args:
        features: (n, d) float32 or float64.
        most: how many pairs.

    Returns:
        (smaller row number, larger, Euclidean distance), nearest first; at most as many as there are. Which of equal
        distances are left out is the same each time.

    Raises:
        ValueError: fewer than two rows, or rows that are not finite; it says how many.
    """
    rows = _prepared(features)
    found = np.empty((0, 3))  # squared distance, smaller number, larger: ascending
    for tile in tiles(rows, rows, lower=True):
        limit = found[most - 1, 0] if len(found) >= most else np.inf
        if limit == 0:
            break  # nothing is nearer
        chosen = _earlier(tile.squares < np.nextafter(limit + tile.slack, np.inf), tile.first_query, tile.first_row)
        if np.count_nonzero(chosen) > 4 * most:
            tightest = np.partition(tile.squares[chosen], most - 1)[most - 1]
            chosen &= tile.squares <= tightest + 2 * tile.slack.max()
        later, earlier = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
        squares = tile.direct(later, earlier)
        new = np.column_stack([squares, earlier + tile.first_row, later + tile.first_query])
        found = np.concatenate([found, new])
        found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))][:most]
    return [(int(earlier), int(later), math.sqrt(square)) for square, earlier, later in found]


def _prepared(features: Features) -> Rows:
    if len(features) < 2:
        raise ValueError(f"a pair takes two rows, there are {len(features)}")
    return prepare(features)


def _alike(rows: Rows, first: int, last: int, threshold: float, of: Int64s) -> Int64s:
    """Pairs at most the threshold apart, whose larger row number is one of first to last: (2, pairs)."""
    found = [np.empty((2, 0), np.int64)]
    limit = threshold * threshold
    for tile in tiles(rows.part(first, last), rows.part(0, last)):
        chosen = _earlier(tile.squares <= limit * (1 + 1e-12) + tile.slack, tile.first_query + first, tile.first_row)
        later, earlier = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
        pairs = np.stack([earlier + tile.first_row, later + tile.first_query + first])
        near = of[pairs[0]] == of[pairs[1]]
        near[near] = np.sqrt(tile.direct(later[near], earlier[near])) <= threshold
        found.append(pairs[:, near])
    return np.concatenate(found, axis=1)


def _earlier(chosen: NDArray[np.bool_], first_query: int, first_row: int) -> NDArray[np.bool_]:
    """Leave only pairs whose row has the smaller number, in place."""
    if first_row + chosen.shape[1] > first_query:
        high, wide = chosen.shape
        chosen &= np.tri(high, wide, first_query - first_row - 1, dtype=np.bool_)
    return chosen


def _summarise(pairs: Int64s, of: Int64s) -> Collisions:
    """Collisions (2, pairs) among rows of groups (rows,)."""
    sizes, degrees = np.bincount(of).astype(np.float64), np.bincount(pairs.ravel())
    count, compared = pairs.shape[1], int((sizes * (sizes - 1)).sum()) // 2
    if not count:
        return Collisions(count=0, rows=len(of), pairs_compared=compared)
    shared = float((degrees * (degrees - 1)).sum()) / 2  # two pairs with a row in common
    if_even = float((sizes * (sizes - 1) * (sizes - 2)).sum()) / 2 * (count / compared) ** 2
    dispersion = 1.0 + 2.0 * max(0.0, shared - if_even) / count
    return Collisions(count=count, rows=len(of), pairs_compared=compared, dispersion=dispersion)


def _poisson(count: float) -> Interval:
    """The exact interval of a Poisson count's mean, continued to counts that are not whole."""
    return float(gammaincinv(count, 0.025)) if count else 0.0, float(gammaincinv(count + 1, 0.975))
