"""Birthday test, made automatic: how many different images a generator makes, from how often two are nearly equal.

Features enter, the effective number of different images leaves. Among s draws from N equally likely images there are
about s(s − 1) / 2N pairs of equal ones: s need only be about the root of N. A pair is a collision when its distance is
at most a threshold, which hardly any pair of held-out rows falls below (`calibrate`), so the same count on real rows
shows what to expect.

The estimate is N_eff = 1 / Σ p², the Hill number of order 2. Counting stops at the row that brings enough collisions,
so that a collapsed generator is detected in few samples, and while collisions are few they are nearly independent.
Where some images are much likelier than others, several collisions share a row: from how often two do, the count's
variance follows, and the interval is widened by it.

Sources: Arora, Risteski, Zhang, "Do GANs learn the distribution? Some theory and empirics", ICLR 2018, section 3; the
count's variance: Lee, "U-Statistics", 1990, section 1.3. The calibrated threshold, the stop and the interval are this
project's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from service.evaluation.statistics.distances import Rows, prepare, tiles
from service.evaluation.statistics.intervals import Estimate, poisson_interval
from service.evaluation.statistics.rows import Bools, Features, Int64s

__all__ = ["ENOUGH", "Collisions", "calibrate", "closest_pairs", "count_collisions", "effective_size"]

ENOUGH = 20
"""Collisions at which counting stops: N_eff is then known to within about 0.65 to 1.6 times."""


@dataclass(frozen=True, kw_only=True)
class Collisions:
    """A count of collisions.

    Attributes:
        count: pairs at most the threshold apart.
        rows: how many rows were examined, from the first.
        pairs_compared: how many pairs those rows make.
        dispersion: the count's variance over that of independent pairs, at least 1.
    """

    count: int
    rows: int
    pairs_compared: int
    dispersion: float = 1.0


def calibrate(features: Features, collisions: int = ENOUGH) -> float:
    """Return the distance at or below which a number of pairs of held-out rows lie.

    Args:
        features: (m, d) of held-out rows, float32 or float64.
        collisions: how many pairs; at most as many as there are.
    """
    if len(features) * (len(features) - 1) // 2 < collisions:
        raise ValueError(f"{len(features)} rows make fewer than {collisions} pairs")
    return closest_pairs(features, collisions)[-1][2]


def count_collisions(features: Features, threshold: float, *, enough: int = ENOUGH, block: int = 256) -> Collisions:
    """Count pairs at most the threshold apart, row after row, until there are enough.

    Args:
        features: (n, d) float32 or float64, in the order they were drawn.
        threshold: of `calibrate`.
        enough: stop at the row with which the count reaches it.
        block: rows examined at a time; it affects the speed alone.
    """
    rows = _prepare_pairs(features)
    found, count = [], 0
    for first in range(0, len(rows), block):
        found.append(_collisions_of_block(rows, first, min(first + block, len(rows)), threshold))
        count += found[-1].shape[1]
        if count >= enough:
            break
    pairs = np.concatenate(found, axis=1)  # (2, pairs): the smaller row number, the larger
    examined = int(np.partition(pairs[1], enough - 1)[enough - 1]) + 1 if count >= enough else len(rows)
    return _summarise(pairs[:, pairs[1] < examined], examined)


def effective_size(collisions: Collisions) -> Estimate:
    """Estimate N_eff = pairs / collisions, with the exact Poisson interval of the count, widened by its dispersion.

    Without a collision the value and the upper end are infinite, and only the lower end is known.
    """
    if not collisions.pairs_compared:
        raise ValueError(f"{collisions.rows} rows made no pair to compare")
    pairs, independent = float(collisions.pairs_compared), collisions.count / collisions.dispersion
    low, high = (end * collisions.dispersion for end in poisson_interval(independent))
    value = pairs / collisions.count if collisions.count else math.inf
    return Estimate(value, (pairs / high, pairs / low if low else math.inf))


def closest_pairs(features: Features, most: int) -> list[tuple[int, int, float]]:
    """Find the pairs of rows with the smallest distances.

    Args:
        features: (n, d) float32 or float64.
        most: how many pairs.

    Returns:
        (smaller row number, larger, Euclidean distance), nearest first; at most as many as there are. Which of equal
        distances are left out is the same each time.
    """
    rows = _prepare_pairs(features)
    found = np.empty((0, 3))  # squared distance, smaller number, larger: ascending
    for tile in tiles(rows, rows, lower=True):
        limit = found[most - 1, 0] if len(found) >= most else np.inf
        if limit == 0:
            break  # nothing is nearer
        chosen = _keep_earlier_rows(
            tile.squares < np.nextafter(limit + tile.slack, np.inf), tile.first_query, tile.first_row
        )
        if np.count_nonzero(chosen) > 4 * most:
            tightest = np.partition(tile.squares[chosen], most - 1)[most - 1]
            chosen &= tile.squares <= tightest + 2 * tile.slack.max()
        later, earlier = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
        squares = tile.direct(later, earlier)
        new = np.column_stack([squares, earlier + tile.first_row, later + tile.first_query])
        found = np.concatenate([found, new])
        found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))][:most]
    return [(int(earlier), int(later), math.sqrt(square)) for square, earlier, later in found]


def _prepare_pairs(features: Features) -> Rows:
    if len(features) < 2:
        raise ValueError(f"a pair takes two rows, there are {len(features)}")
    return prepare(features)


def _collisions_of_block(rows: Rows, first: int, last: int, threshold: float) -> Int64s:
    """Find pairs at most the threshold apart whose larger row number is in [first, last): (2, pairs)."""
    found = [np.empty((2, 0), np.int64)]
    limit = threshold * threshold
    for tile in tiles(rows.part(first, last), rows.part(0, last)):
        chosen = _keep_earlier_rows(
            tile.squares <= limit * (1 + 1e-12) + tile.slack, tile.first_query + first, tile.first_row
        )
        later, earlier = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
        near = np.sqrt(tile.direct(later, earlier)) <= threshold
        found.append(np.stack([earlier[near] + tile.first_row, later[near] + tile.first_query + first]))
    return np.concatenate(found, axis=1)


def _keep_earlier_rows(chosen: Bools, first_query: int, first_row: int) -> Bools:
    """Keep only pairs whose row has a smaller number than the query, in place."""
    if first_row + chosen.shape[1] > first_query:
        height, width = chosen.shape
        chosen &= np.tri(height, width, first_query - first_row - 1, dtype=np.bool_)
    return chosen


def _summarise(pairs: Int64s, rows: int) -> Collisions:
    """Summarise collisions (2, pairs) among so many rows."""
    count, compared = pairs.shape[1], rows * (rows - 1) // 2
    if not count:
        return Collisions(count=0, rows=rows, pairs_compared=compared)
    degrees = np.bincount(pairs.ravel())
    shared = float((degrees * (degrees - 1)).sum()) / 2  # pairs of collisions with a row in common
    expected = float(rows) * (rows - 1) * (rows - 2) / 2 * (count / compared) ** 2  # of equally likely images
    dispersion = 1.0 + 2.0 * max(0.0, shared - expected) / count
    return Collisions(count=count, rows=rows, pairs_compared=compared, dispersion=dispersion)
